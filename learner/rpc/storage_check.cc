#include "learner/rpc/storage_check.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

absl::Status TryIn(const std::string& scratch) {
  SLUICE_RETURN_IF_ERROR(MakeDirectories(JoinPath(scratch, "new")));
  SLUICE_RETURN_IF_ERROR(MakeDirectories(JoinPath(scratch, "old")));
  const std::string file = JoinPath(JoinPath(scratch, "new"), "file");
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(file, "first"));
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(file, "second"));
  SLUICE_RETURN_IF_ERROR(ReplaceFolder(JoinPath(scratch, "new"), JoinPath(scratch, "old")));
  SLUICE_ASSIGN_OR_RETURN(const std::string read, ReadFile(JoinPath(JoinPath(scratch, "old"), "file"), 1024));
  if (read == "second") return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("wrote \"second\" and read \"", read, "\""));
}

}  // namespace

StorageFacts LookAtStorage(const std::string& folder) {
  StorageFacts facts;
  struct statvfs disk = {};
  if (statvfs(folder.c_str(), &disk) == 0) {
    facts.free_bytes = static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize;
    facts.total_bytes = static_cast<uint64_t>(disk.f_blocks) * disk.f_frsize;
  }
  struct statvfs shm = {};
  if (statvfs("/dev/shm", &shm) == 0) facts.shm_bytes = static_cast<uint64_t>(shm.f_blocks) * shm.f_frsize;
  return facts;
}

absl::Status TryStorage(const std::string& folder) {
  const std::string scratch = JoinPath(folder, absl::StrCat(".storage-check-", getpid(), ".tmp"));
  absl::Status status = RemoveAll(scratch);
  if (status.ok()) status = MakeDirectories(scratch);
  if (status.ok()) status = TryIn(scratch);
  status.Update(RemoveAll(scratch));
  if (status.ok()) return status;
  return Annotate(status, absl::StrCat("the folder of runs '", folder,
                                       "' cannot hold checkpoints (it must take writes, fsync and rename): give the "
                                       "coordinator another --runs"));
}

}  // namespace sluice::learner
