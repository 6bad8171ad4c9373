#include "learner/job/sqlite.h"

#include <sqlite3.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log/log.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"

namespace sluice::learner {

SqliteQuery::~SqliteQuery() {
  if (statement_ == nullptr) return;
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

SqliteQuery& SqliteQuery::Bind(const std::string& text) {
  sqlite3_bind_text64(statement_, ++bound_, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  return *this;
}

SqliteQuery& SqliteQuery::Bind(int64_t number) {
  sqlite3_bind_int64(statement_, ++bound_, number);
  return *this;
}

SqliteQuery& SqliteQuery::Bind(double number) {
  sqlite3_bind_double(statement_, ++bound_, number);
  return *this;
}

SqliteQuery& SqliteQuery::BindBlob(const std::string& bytes) {
  sqlite3_bind_blob64(statement_, ++bound_, bytes.data(), bytes.size(), SQLITE_TRANSIENT);
  return *this;
}

absl::Status SqliteQuery::Run() {
  while (true) {
    SLUICE_ASSIGN_OR_RETURN(const bool row, Next());
    if (!row) return absl::OkStatus();
  }
}

absl::StatusOr<bool> SqliteQuery::Next() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return database_->Error(code, "writing or reading a job");
}

std::string SqliteQuery::Text(int column) const {
  const void* bytes = sqlite3_column_blob(statement_, column);
  const int size = sqlite3_column_bytes(statement_, column);
  return bytes == nullptr ? std::string() : std::string(static_cast<const char*>(bytes), size);
}

int64_t SqliteQuery::Int(int column) const { return sqlite3_column_int64(statement_, column); }

double SqliteQuery::Double(int column) const { return sqlite3_column_double(statement_, column); }

absl::StatusOr<std::unique_ptr<SqliteDatabase>> SqliteDatabase::Open(const std::string& path, int64_t max_bytes) {
  std::unique_ptr<SqliteDatabase> database(new SqliteDatabase(path));
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  const int code = sqlite3_open_v2(path.c_str(), &database->handle_, flags, nullptr);
  if (code != SQLITE_OK) return database->Error(code, "opening");
  sqlite3_busy_timeout(database->handle_, 2000);
  sqlite3_extended_result_codes(database->handle_, 1);
  // Exclusive: two coordinators on one store would give out the same numbers twice.
  SLUICE_RETURN_IF_ERROR(database->Execute("PRAGMA locking_mode=EXCLUSIVE"));
  SLUICE_RETURN_IF_ERROR(database->Execute("PRAGMA journal_mode=WAL"));
  SLUICE_RETURN_IF_ERROR(database->Execute("PRAGMA synchronous=FULL"));
  SLUICE_RETURN_IF_ERROR(database->Execute("PRAGMA foreign_keys=ON"));
  SLUICE_RETURN_IF_ERROR(database->Execute("BEGIN IMMEDIATE; COMMIT"));  // takes the lock now, not at the first job
  // Pages have 4096 bytes unless a file says otherwise.
  SLUICE_RETURN_IF_ERROR(database->Execute(absl::StrCat("PRAGMA max_page_count=", max_bytes / 4096)));
  SqliteQuery check = database->Query("PRAGMA quick_check(1)");
  SLUICE_ASSIGN_OR_RETURN(const bool row, check.Next());
  if (!row || check.Text(0) != "ok") return database->Error(SQLITE_CORRUPT, check.Text(0));
  return database;
}

SqliteDatabase::~SqliteDatabase() {
  for (const auto& [sql, statement] : statements_) sqlite3_finalize(statement);
  sqlite3_close(handle_);
}

absl::Status SqliteDatabase::Execute(const std::string& sql) {
  const int code = sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : Error(code, "opening or writing");
}

SqliteQuery SqliteDatabase::Query(const std::string& sql) {
  sqlite3_stmt*& statement = statements_[sql];
  if (statement == nullptr) {
    const int code = sqlite3_prepare_v3(handle_, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT,
                                        &statement, nullptr);
    SLUICE_CHECK(code == SQLITE_OK, absl::StrCat(sqlite3_errmsg(handle_), ": ", sql));
  }
  return SqliteQuery(this, statement);
}

absl::Status SqliteDatabase::Transaction(const std::function<absl::Status()>& body) {
  SLUICE_RETURN_IF_ERROR(Execute("BEGIN IMMEDIATE"));
  absl::Status status = body();
  if (status.ok()) status = Execute("COMMIT");
  // SQLite has rolled back by itself after some errors (a full disk); then this finds nothing to do.
  if (!status.ok() && sqlite3_get_autocommit(handle_) == 0) {
    const absl::Status rollback = Execute("ROLLBACK");
    if (!rollback.ok()) LogError("could not roll a transaction back", {{"error", rollback.ToString()}});
  }
  return status;
}

int64_t SqliteDatabase::Changes() const { return sqlite3_changes64(handle_); }

absl::Status SqliteDatabase::Error(int code, const std::string& what) const {
  const std::string detail = handle_ == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(handle_);
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(absl::StrCat("job store ", path_, " is damaged or not a job store (", what, ": ",
                                              detail,
                                              "); move it away, with its -wal and -shm, or put a backup in its place. "
                                              "Runs keep their results in their folders"));
    case SQLITE_FULL:
      return NoSpaceError(absl::StrCat("no space left to write the job store ", path_, "; free some and retry"));
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::UnavailableError(
          absl::StrCat("job store ", path_, " is held by another process; a job store has one coordinator"));
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_AUTH:
      return absl::PermissionDeniedError(absl::StrCat("job store ", path_, " cannot be opened for writing: ", detail));
    case SQLITE_IOERR:
      return absl::UnavailableError(absl::StrCat("job store ", path_, ": ", detail, " while ", what));
    default:
      return absl::InternalError(absl::StrCat("job store ", path_, ": ", detail, " while ", what));
  }
}

}  // namespace sluice::learner
