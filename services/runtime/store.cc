#include "services/runtime/store.h"

#include <rocksdb/db.h>
#include <rocksdb/write_batch.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/runtime/files.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

absl::Status FromRocks(const rocksdb::Status& status) {
  if (status.ok()) return absl::OkStatus();
  if (status.IsNoSpace())
    return absl::ResourceExhaustedError(absl::StrCat("database: ", status.ToString()));
  if (status.IsCorruption())
    return absl::DataLossError(absl::StrCat("database: ", status.ToString()));
  return absl::UnavailableError(absl::StrCat("database: ", status.ToString()));
}

rocksdb::WriteOptions Durable() {
  rocksdb::WriteOptions options;
  options.sync = true;
  return options;
}

}  // namespace

Store::Store(rocksdb::DB* db) : db_(db) {}
Store::~Store() = default;

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const std::string& path) {
  E3_RETURN_IF_ERROR(MakeFolders(path));
  rocksdb::Options options;
  options.create_if_missing = true;
  options.keep_log_file_num = 2;
  options.max_total_wal_size = 256 << 20;
  rocksdb::DB* db = nullptr;
  rocksdb::Status status = rocksdb::DB::Open(options, path, &db);
  if (!status.ok()) {
    if (absl::StrContains(status.ToString(), "lock")) {
      return absl::FailedPreconditionError(
          absl::StrCat("database ", path, " is in use by another process"));
    }
    return FromRocks(status);
  }
  return std::unique_ptr<Store>(new Store(db));
}

absl::Status Store::Put(const std::string& key, const google::protobuf::MessageLite& value) {
  return PutAll({{key, &value}});
}

absl::Status Store::PutAll(
    const std::vector<std::pair<std::string, const google::protobuf::MessageLite*>>& entries) {
  rocksdb::WriteBatch batch;
  for (const auto& [key, value] : entries) {
    std::string bytes;
    if (!value->SerializeToString(&bytes))
      return absl::InternalError(
          absl::StrCat("record ", key, " cannot be written (2 GiB at most)"));
    E3_RETURN_IF_ERROR(FromRocks(batch.Put(key, bytes)));
  }
  return FromRocks(db_->Write(Durable(), &batch));
}

absl::Status Store::Get(const std::string& key, google::protobuf::MessageLite* value) const {
  std::string bytes;
  rocksdb::Status status = db_->Get(rocksdb::ReadOptions(), key, &bytes);
  if (status.IsNotFound()) return absl::NotFoundError(absl::StrCat("no record ", key));
  E3_RETURN_IF_ERROR(FromRocks(status));
  if (!value->ParseFromString(bytes))
    return absl::DataLossError(absl::StrCat("record ", key, " cannot be read"));
  return absl::OkStatus();
}

absl::Status Store::Delete(const std::string& key) {
  return FromRocks(db_->Delete(Durable(), key));
}

absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Store::Scan(
    const std::string& prefix) const {
  std::vector<std::pair<std::string, std::string>> entries;
  std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(rocksdb::ReadOptions()));
  for (it->Seek(prefix); it->Valid() && it->key().starts_with(prefix); it->Next()) {
    entries.emplace_back(it->key().ToString(), it->value().ToString());
  }
  E3_RETURN_IF_ERROR(FromRocks(it->status()));
  return entries;
}

absl::StatusOr<std::vector<std::string>> Store::Keys(const std::string& prefix) const {
  std::vector<std::string> keys;
  std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator(rocksdb::ReadOptions()));
  for (it->Seek(prefix); it->Valid() && it->key().starts_with(prefix); it->Next())
    keys.push_back(it->key().ToString());
  E3_RETURN_IF_ERROR(FromRocks(it->status()));
  return keys;
}

}  // namespace e3
