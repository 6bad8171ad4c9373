#include "learner/rpc/data_service.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/log/log.h"
#include "common/rpc/status.h"
#include "common/status/status.h"
#include "learner/rpc/job_messages.h"
#include "sluice/v1/spec.pb.h"

namespace sluice::learner {
namespace {

constexpr size_t kMaxChunkBytes = 4 << 20;

bool IsBelow(const std::string& path, const std::string& folder) {
  return path == folder || absl::StartsWith(path, absl::StrCat(folder, "/"));
}

}  // namespace

absl::Status CheckUnused(const std::string& folder, JobStore* jobs, const std::string& but) {
  SLUICE_ASSIGN_OR_RETURN(std::vector<JobRecord> unfinished, jobs->Unfinished());
  SLUICE_ASSIGN_OR_RETURN(const std::vector<JobRecord> paused, jobs->Paused());
  unfinished.insert(unfinished.end(), paused.begin(), paused.end());
  for (const JobRecord& listed : unfinished) {
    if (listed.id == but) continue;
    SLUICE_ASSIGN_OR_RETURN(const JobRecord job, jobs->Get(listed.id));
    v1::JobSpec spec;
    if (!spec.ParseFromString(job.spec)) continue;
    for (const std::string& path : {spec.data(), spec.model().path(), spec.prepare().events()}) {
      if (!IsBelow(path, folder)) continue;
      return absl::FailedPreconditionError(
          absl::StrCat("job ", job.id, " is ", JobStateName(job.state), " and reads '", path, "'; end it first"));
    }
  }
  return absl::OkStatus();
}

absl::Status DataService::Open(grpc::ServerContext* context, absl::string_view method) const {
  SLUICE_RETURN_IF_ERROR(admit_(context, method));
  if (data_ != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError("this coordinator takes no pushed data; start it with --data-root FOLDER");
}

grpc::Status DataService::Begin(grpc::ServerContext* context, const v1::BeginPushRequest* request,
                                v1::BeginPushResponse* response) {
  if (const absl::Status open = Open(context, "Begin"); !open.ok()) return ToGrpc(open);
  std::vector<PushedFile> files;
  for (const v1::DataFile& file : request->files()) files.push_back({file.path(), file.bytes(), file.sha256()});
  const absl::StatusOr<DataStore::Begun> begun = data_->Begin(request->name(), files);
  if (!begun.ok()) return ToGrpc(begun.status());
  response->set_digest(begun->digest);
  response->set_complete(begun->complete);
  response->mutable_have()->Add(begun->have.begin(), begun->have.end());
  return grpc::Status::OK;
}

grpc::Status DataService::Put(grpc::ServerContext* context, const v1::PutRequest* request, v1::PutResponse* response) {
  if (const absl::Status open = Open(context, "Put"); !open.ok()) return ToGrpc(open);
  if (request->data().size() > kMaxChunkBytes) {
    return ToGrpc(absl::InvalidArgumentError(
        absl::StrCat("data: want at most ", kMaxChunkBytes, " bytes at a time, got ", request->data().size())));
  }
  if (Sha256(request->data()) != request->chunk_sha256()) {
    return ToGrpc(absl::DataLossError("the bytes are not those of chunk_sha256; send them again"));
  }
  const absl::StatusOr<uint64_t> have =
      data_->Put(request->digest(), request->path(), request->offset(), request->data());
  if (!have.ok()) return ToGrpc(have.status());
  response->set_have(*have);
  return grpc::Status::OK;
}

grpc::Status DataService::Commit(grpc::ServerContext* context, const v1::CommitPushRequest* request,
                                 v1::CommitPushResponse* response) {
  if (const absl::Status open = Open(context, "Commit"); !open.ok()) return ToGrpc(open);
  absl::StatusOr<std::string> folder = data_->Commit(request->digest());
  if (!folder.ok()) return ToGrpc(folder.status());
  LogInfo("data pushed", {{"digest", request->digest()}, {"folder", *folder}});
  response->set_folder(*std::move(folder));
  return grpc::Status::OK;
}

grpc::Status DataService::List(grpc::ServerContext* context, const v1::ListDataRequest*,
                               v1::ListDataResponse* response) {
  if (const absl::Status open = Open(context, "List"); !open.ok()) return ToGrpc(open);
  const absl::StatusOr<std::vector<PushedFolder>> folders = data_->List();
  if (!folders.ok()) return ToGrpc(folders.status());
  for (const PushedFolder& folder : *folders) {
    v1::DataFolder* message = response->add_folders();
    message->set_digest(folder.digest);
    message->set_name(folder.name);
    message->set_bytes(folder.bytes());
    message->set_files(folder.files.size());
    SetTime(folder.pushed, message->mutable_pushed());
    message->set_folder(folder.folder);
  }
  response->set_used_bytes(data_->UsedBytes());
  response->set_quota_bytes(data_->quota_bytes());
  return grpc::Status::OK;
}

grpc::Status DataService::Remove(grpc::ServerContext* context, const v1::RemoveDataRequest* request,
                                 v1::RemoveDataResponse* response) {
  if (const absl::Status open = Open(context, "Remove"); !open.ok()) return ToGrpc(open);
  const absl::StatusOr<PushedFolder> folder = data_->Find(request->digest());
  if (!folder.ok()) return ToGrpc(folder.status());
  if (const absl::Status unused = CheckUnused(folder->folder, jobs_); !unused.ok()) return ToGrpc(unused);
  const absl::StatusOr<uint64_t> freed = data_->Remove(folder->digest);
  if (!freed.ok()) return ToGrpc(freed.status());
  LogInfo("data removed", {{"digest", folder->digest}});
  response->set_freed_bytes(*freed);
  return grpc::Status::OK;
}

}  // namespace sluice::learner
