// The records of a data file as JSON objects: lines of JSONL, rows of parquet.
#ifndef E3_TASKS_RECORDS_H_
#define E3_TASKS_RECORDS_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace e3 {

// Calls `f` with every record of the file and its number, from 1 (the line of JSONL, where empty
// lines count and are passed over; the row of a file whose name ends in .parquet). Stops at the
// first error, which names file and record. NotFound when there is no such file; InvalidArgument
// for what is not a JSON object or not parquet.
absl::Status ForEachRecord(
    const std::string& path,
    const std::function<absl::Status(const nlohmann::json& record, int64_t number)>& f);

}  // namespace e3

#endif  // E3_TASKS_RECORDS_H_
