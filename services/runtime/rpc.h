// What every gRPC client and server of e3 shares: channels, and the two Status types.
#ifndef E3_SERVICES_RUNTIME_RPC_H_
#define E3_SERVICES_RUNTIME_RPC_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/status.h"

namespace e3 {

// Messages carry weight chunks and whole batches of text.
inline constexpr int kMaxMessageBytes = 64 << 20;

// A channel to "host:port" that reconnects within a second after the server comes back, and notices
// a dead peer.
std::shared_ptr<grpc::Channel> Connect(const std::string& address);

// Codes are the same numbers in both.
absl::Status FromGrpc(const grpc::Status& status);
grpc::Status ToGrpc(const absl::Status& status);

// Whether the same call may succeed later: the server is away, busy or restarting.
bool IsTransient(const absl::Status& status);

// What a server that is asked to stop ends its streams with (Unavailable), and whether a status is
// that: nothing has gone wrong then.
grpc::Status Draining();
bool IsDraining(const grpc::Status& status);

}  // namespace e3

#endif  // E3_SERVICES_RUNTIME_RPC_H_
