// The little of SQLite that the job store needs: a connection, prepared statements, transactions; errors as statuses.
//
// Codes: DataLoss (damaged or not a database), NoSpaceError (disk or page limit full), Unavailable (another process
// holds the file), PermissionDenied, Internal. Not thread-safe: the owner serializes.
#ifndef SLUICE_LEARNER_JOB_SQLITE_H_
#define SLUICE_LEARNER_JOB_SQLITE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct sqlite3;
struct sqlite3_stmt;

namespace sluice::learner {

class SqliteDatabase;

// A prepared statement with its parameters bound in order. Made by SqliteDatabase::Query; resets on destruction.
class SqliteQuery {
 public:
  SqliteQuery(SqliteQuery&& other) noexcept : database_(other.database_), statement_(other.statement_) {
    other.statement_ = nullptr;
  }
  SqliteQuery(const SqliteQuery&) = delete;
  ~SqliteQuery();

  SqliteQuery& Bind(const std::string& text);
  SqliteQuery& Bind(int64_t number);
  SqliteQuery& Bind(uint64_t number) { return Bind(static_cast<int64_t>(number)); }
  SqliteQuery& Bind(int number) { return Bind(static_cast<int64_t>(number)); }
  SqliteQuery& Bind(double number);
  SqliteQuery& BindBlob(const std::string& bytes);

  // Runs to the end; rows are ignored.
  absl::Status Run();
  // Moves to the next row. False at the end.
  absl::StatusOr<bool> Next();

  // Columns of the present row, from 0.
  std::string Text(int column) const;
  int64_t Int(int column) const;
  uint64_t Uint(int column) const { return static_cast<uint64_t>(Int(column)); }
  double Double(int column) const;

 private:
  friend class SqliteDatabase;
  SqliteQuery(SqliteDatabase* database, sqlite3_stmt* statement) : database_(database), statement_(statement) {}

  SqliteDatabase* database_;
  sqlite3_stmt* statement_;
  int bound_ = 0;
};

class SqliteDatabase {
 public:
  // Opens or makes the file in WAL mode with synchronous=FULL and holds it exclusively. `max_bytes` bounds its size.
  static absl::StatusOr<std::unique_ptr<SqliteDatabase>> Open(const std::string& path, int64_t max_bytes);
  ~SqliteDatabase();

  // Runs statements without parameters or results.
  absl::Status Execute(const std::string& sql);
  // Prepares `sql` (once; cached) for binding. `sql` must be valid: it is ours.
  SqliteQuery Query(const std::string& sql);
  // Runs `body` in a transaction; rolls back if it fails. Does not nest.
  absl::Status Transaction(const std::function<absl::Status()>& body);
  // Rows changed by the latest statement.
  int64_t Changes() const;

  absl::Status Error(int code, const std::string& what) const;

 private:
  explicit SqliteDatabase(std::string path) : path_(std::move(path)) {}

  const std::string path_;
  sqlite3* handle_ = nullptr;
  std::map<std::string, sqlite3_stmt*> statements_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_JOB_SQLITE_H_
