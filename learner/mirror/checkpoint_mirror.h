// Copies of a job's checkpoints in an object store, for machines whose disks do not outlive them.
//
//   FOLDER/step-00000120/manifest.json                the checkpoint's own; written last, removed first
//   FOLDER/step-00000120/<digest of it>/state.json    and every other file that it lists
//   FOLDER/step-00000120/<digest of it>-beside/...    files that belong to it and lie elsewhere, such as a ledger's
//   table, FOLDER/step-00000120/<digest of it>-beside.json   and their sizes and SHA-256
//
// A checkpoint with a manifest is whole. As files lie under the digest of their manifest, one that is written again
// under its old name (a run that resumed, and repeats a step) does not touch the files of the one that is visible:
// writing its manifest changes from one to the other in one operation. To restore by hand, copy a digest's folder and
// the manifest into one folder of the checkpoint's name.
//
// It knows of a checkpoint what its manifest says, and nothing of tensors: files, sizes, SHA-256. Names are
// "step-<number>"; the highest number is the newest. Errors are those of the store; every function may be called again
// after one and goes on where it was. Not thread-safe, and one writer for each folder: a rank that lost its epoch must
// not write any more.
#ifndef SLUICE_LEARNER_MIRROR_CHECKPOINT_MIRROR_H_
#define SLUICE_LEARNER_MIRROR_CHECKPOINT_MIRROR_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/object_store/object_store.h"
#include "learner/mirror/checkpoint_manifest.h"

namespace sluice::learner {

struct MirrorOptions {
  // Bounds against a store that holds something else. Reaching one is an error.
  int64_t max_objects = 100'000;
  int64_t max_manifest_bytes = int64_t{16} << 20;
  int64_t max_file_bytes = int64_t{1} << 40;
};

// A file outside of the checkpoint's folder that belongs to it.
struct FileBeside {
  std::string name;         // a key; where FetchNewest puts it, below a folder of the caller
  std::string path;         // here
  ExpectedContent content;  // both size and digest
};

struct FetchOptions {
  // Where files beside the checkpoint go; FailedPrecondition if it has any and this is empty. One that is there and
  // only longer stays: such files grow, and are cut by whoever resumes.
  std::string beside_folder;
  // Fetch only a checkpoint of a higher step: the newest whole one that is here already.
  std::optional<uint64_t> newer_than;
};

struct FetchedCheckpoint {
  std::string path;  // of the local folder; empty if the mirror has nothing (newer)
  // Newer ones that are damaged, each with what is wrong with it. A caller should tell somebody.
  std::vector<std::string> damaged;
};

class CheckpointMirror {
 public:
  // `folder`: a key, the job's own, such as "job-17/checkpoints".
  CheckpointMirror(std::shared_ptr<ObjectStore> store, std::string folder, MirrorOptions options = {});

  // Copies the complete checkpoint `path`, whose last part is its name. Does nothing if it is there already, and sends
  // no file twice that an interrupted call has sent. The folder must stay until this returns. DataLoss if a file is not
  // what its manifest says, or one beside it not what is said here: then it is not made visible.
  absl::Status Upload(const std::string& path, const std::vector<FileBeside>& beside = {});

  // Names of the complete checkpoints, oldest first.
  absl::StatusOr<std::vector<std::string>> List();

  // Brings the newest whole checkpoint to `parent`/NAME, checked file by file and renamed into place after the files
  // beside it, unless all is there and undamaged. A damaged one is passed over for the next older. DataLoss if the
  // mirror has none but damaged ones and `newer_than` is not set. An error of the store is returned and no reason to
  // take an older one.
  absl::StatusOr<FetchedCheckpoint> FetchNewest(const std::string& parent, const FetchOptions& options);

  // Brings one by its name, checked and renamed into place the same way; one with files beside it is none of those that
  // this is for. NotFound: it is not complete there.
  absl::Status FetchNamed(const std::string& name, const std::string& parent);

  // Removes all checkpoints but those named, and what interrupted calls left. The newest complete one stays whatever is
  // named. InvalidArgument if nothing is named.
  absl::Status Prune(const std::vector<std::string>& keep);

  // Removes the checkpoints of later steps than that of `name`: a run that went back to an older checkpoint has
  // abandoned them. FailedPrecondition unless `name` is complete there, so that the newest complete one never goes for
  // nothing.
  absl::Status RemoveNewer(const std::string& name);

  // Where it is, for messages.
  std::string name() const;

 private:
  struct Contents;  // of the folder, by name

  absl::StatusOr<Contents> Look();
  std::string Key(const std::string& name, const std::string& file) const;
  absl::Status Remove(const std::string& name, const std::vector<std::string>& keys);
  absl::Status Fetch(const Contents& contents, const std::string& name, const std::string& parent,
                     const std::string& beside_folder);
  absl::StatusOr<std::vector<ManifestFile>> FilesBeside(const Contents& contents, const std::string& name,
                                                        const std::string& digest);
  // Sends what has not been sent to `relative`.
  absl::Status Send(const Contents& contents, const std::string& name, const std::string& relative,
                    const std::string& path, const ExpectedContent& content);
  absl::Status RemoveStale(const std::string& name, const std::vector<std::string>& keys);

  const std::shared_ptr<ObjectStore> store_;
  const std::string folder_;
  const MirrorOptions options_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_MIRROR_CHECKPOINT_MIRROR_H_
