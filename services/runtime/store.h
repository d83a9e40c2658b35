// A durable map from keys to protobuf messages (RocksDB). What a call has written survives kill -9
// and power loss.
#ifndef E3_SERVICES_RUNTIME_STORE_H_
#define E3_SERVICES_RUNTIME_STORE_H_

#include <google/protobuf/message_lite.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace rocksdb {
class DB;
}

namespace e3 {

// Thread-safe. One process may have a store open at a time.
class Store {
 public:
  // Opens or makes the database in folder `path`.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const std::string& path);
  ~Store();

  absl::Status Put(const std::string& key, const google::protobuf::MessageLite& value);
  // All or nothing.
  absl::Status PutAll(
      const std::vector<std::pair<std::string, const google::protobuf::MessageLite*>>& entries);
  // NotFound when there is no such key; DataLoss when the value is not a `value`.
  absl::Status Get(const std::string& key, google::protobuf::MessageLite* value) const;
  absl::Status Delete(const std::string& key);
  // Keys that start with `prefix`, in order, with their serialised values.
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Scan(
      const std::string& prefix) const;
  absl::StatusOr<std::vector<std::string>> Keys(const std::string& prefix) const;

 private:
  explicit Store(rocksdb::DB* db);
  std::unique_ptr<rocksdb::DB> db_;
};

}  // namespace e3

#endif  // E3_SERVICES_RUNTIME_STORE_H_
