// Files of run folders, through the coordinator: lists, downloads that go on where they stopped, exports, reports, and
// the comparison of evaluated jobs.
#include <filesystem>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "client/cli/commands.h"
#include "client/cli/format.h"
#include "common/file/append.h"
#include "common/file/file.h"
#include "common/plan/plan.h"
#include "common/progress/progress.h"
#include "common/status/status.h"
#include "common/time/clock.h"

namespace sluice::client {
namespace {

using nlohmann::ordered_json;

constexpr uint32_t kPieceBytes = 1 << 20;
// A download whose file changes under it begins again so often.
constexpr int kMaxRestarts = 5;

std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

// A server must not choose where files go on this machine.
bool StaysInside(const std::string& path) {
  const std::filesystem::path normal = std::filesystem::path(path).lexically_normal();
  return !path.empty() && normal.is_relative() && *normal.begin() != "..";
}

}  // namespace

int Commands::Artifacts(const std::string& job) {
  return WithJob(job, [&](const std::string& id) {
    const absl::StatusOr<v1::ListArtifactsResponse> listed = client_->ListArtifacts(id);
    if (!listed.ok()) return Fail(listed.status());
    ordered_json all = ordered_json::array();
    std::vector<std::vector<std::string>> rows = {{"BYTES", "MODIFIED", "PATH"}};
    for (const v1::Artifact& file : listed->artifacts()) {
      all.push_back({{"path", file.path()}, {"bytes", file.bytes()}, {"modified", TimeJson(true, file.modified())}});
      rows.push_back({absl::StrCat(file.bytes()), LocalTime(file.modified()), file.path()});
    }
    printer_.List("artifacts", all, "path", Table(rows));
    if (listed->truncated()) Talk("there are more files; these are the first");
    return 0;
  });
}

absl::Status Commands::DownloadFile(const std::string& job_id, const v1::Artifact& artifact,
                                    const std::string& target) {
  const std::string part = absl::StrCat(target, ".part"), identity_file = absl::StrCat(target, ".part.identity");
  if (const std::string folder = FolderOf(target); !folder.empty()) SLUICE_RETURN_IF_ERROR(MakeDirectories(folder));
  v1::ReadArtifactRequest request;
  request.set_job_id(job_id);
  request.set_path(artifact.path());
  request.set_max_bytes(kPieceBytes);
  request.set_digest(true);
  if (const auto identity = ReadFile(identity_file, 1024); identity.ok() && PathExists(part)) {
    SLUICE_ASSIGN_OR_RETURN(const int64_t have, FileBytes(part));
    request.set_identity(*identity);
    request.set_offset(static_cast<uint64_t>(have));
  }
  ProgressPrinter::Options options;
  options.terminal = console().err_terminal;
  ProgressPrinter progress(console().err, MonotonicClock(), options);
  for (int restarts = 0;;) {
    if (stop_) return absl::CancelledError("stopped; the same command goes on from here");
    if (request.identity().empty()) {
      request.set_offset(0);
      SLUICE_RETURN_IF_ERROR(RemoveAll(part));
    }
    const absl::StatusOr<v1::ReadArtifactResponse> piece = client_->ReadArtifact(request);
    const bool changed = absl::IsFailedPrecondition(piece.status()) || absl::IsInvalidArgument(piece.status());
    if (changed && !request.identity().empty() && restarts++ < kMaxRestarts) {
      request.clear_identity();
      continue;
    }
    if (!piece.ok()) return piece.status();
    if (Sha256(piece->data()) != piece->chunk_sha256()) {
      return absl::DataLossError(absl::StrCat(artifact.path(), ": bytes were damaged on their way; try again"));
    }
    if (request.identity().empty()) SLUICE_RETURN_IF_ERROR(WriteFileAtomically(identity_file, piece->identity()));
    SLUICE_RETURN_IF_ERROR(AppendToFile(part, piece->data()));
    request.set_identity(piece->identity());
    request.set_offset(request.offset() + piece->data().size());
    if (!console().quiet && piece->total_bytes() > kPieceBytes) {
      progress.Update(artifact.path(), "bytes", static_cast<int64_t>(request.offset()),
                      static_cast<int64_t>(piece->total_bytes()));
    }
    if (request.offset() < piece->total_bytes()) continue;
    SLUICE_ASSIGN_OR_RETURN(const std::string sha256, FileSha256(part));
    if (sha256 != piece->sha256()) {
      SLUICE_RETURN_IF_ERROR(RemoveAll(part));
      return absl::DataLossError(
          absl::StrCat(artifact.path(), ": what was fetched is not what the server has; try again"));
    }
    break;
  }
  SLUICE_RETURN_IF_ERROR(SyncFile(part));
  SLUICE_RETURN_IF_ERROR(RenamePath(part, target));
  return RemoveAll(identity_file);
}

absl::Status Commands::DownloadAll(const std::string& job_id, const std::vector<v1::Artifact>& files,
                                   const std::string& strip, const std::string& folder) {
  for (const v1::Artifact& file : files) {
    const std::string name(absl::StripPrefix(file.path(), strip));
    if (!StaysInside(name)) {
      return absl::DataLossError(absl::StrCat("the server names the file '", file.path(), "', which leads out of '",
                                              folder, "'; nothing more is fetched from it"));
    }
    SLUICE_RETURN_IF_ERROR(DownloadFile(job_id, file, JoinPath(folder, name)));
  }
  return absl::OkStatus();
}

int Commands::Download(const std::string& job, const std::vector<std::string>& prefixes, const std::string& folder) {
  return WithJob(job, [&](const std::string& id) {
    const absl::StatusOr<v1::ListArtifactsResponse> listed = client_->ListArtifacts(id);
    if (!listed.ok()) return Fail(listed.status());
    std::vector<v1::Artifact> files;
    uint64_t bytes = 0;
    for (const v1::Artifact& file : listed->artifacts()) {
      bool wanted = prefixes.empty();
      for (const std::string& prefix : prefixes) wanted = wanted || absl::StartsWith(file.path(), prefix);
      if (!wanted) continue;
      files.push_back(file);
      bytes += file.bytes();
    }
    if (files.empty()) {
      return Fail(absl::NotFoundError(
          absl::StrCat("no file of ", id, " begins so; 'sluicectl artifacts list ", id, "' shows them")));
    }
    const absl::Status status = DownloadAll(id, files, "", folder);
    if (!status.ok()) return Fail(status);
    printer_.One({{"job_id", id}, {"folder", folder}, {"files", files.size()}, {"bytes", bytes}}, "folder",
                 folder + "\n");
    Talk(absl::StrCat(files.size(), " files, ", BytesText(static_cast<double>(bytes)),
                      ", each with its digest checked"));
    return 0;
  });
}

int Commands::Export(const std::string& job, const std::string& which, const std::string& folder) {
  return WithJob(job, [&](const std::string& id) {
    if (PathExists(folder)) {
      return Fail(absl::InvalidArgumentError(absl::StrCat("'", folder, "' is there already; name another --to")));
    }
    const absl::StatusOr<v1::ListArtifactsResponse> listed = client_->ListArtifacts(id);
    if (!listed.ok()) return Fail(listed.status());
    const std::string prefix = absl::StrCat("export/", which, "/");
    std::vector<v1::Artifact> files;
    for (const v1::Artifact& file : listed->artifacts()) {
      if (absl::StartsWith(file.path(), prefix)) files.push_back(file);
    }
    if (files.empty()) {
      return Fail(absl::FailedPreconditionError(absl::StrCat(
          id, " has no ", prefix, " yet: a training job writes it when it validates (best) or ends (final)")));
    }
    // Beside its place until it is whole; a second try goes on from what is there.
    const std::string aside = absl::StrCat(folder, ".part");
    absl::Status status = DownloadAll(id, files, prefix, aside);
    if (status.ok()) status = RenamePath(aside, folder);
    if (!status.ok()) return Fail(status);
    printer_.One({{"job_id", id}, {"which", which}, {"folder", folder}, {"files", files.size()}}, "folder",
                 folder + "\n");
    Talk(absl::StrCat("transformers.AutoModelForCausalLM.from_pretrained('", folder, "') loads it"));
    return 0;
  });
}

int Commands::Report(const std::string& job, const std::string& file) {
  return WithJob(job, [&](const std::string& id) {
    v1::Artifact report;
    report.set_path("report.html");
    const std::string target = file.empty() ? absl::StrCat(id, ".html") : file;
    const absl::Status status = DownloadFile(id, report, target);
    if (absl::IsNotFound(status)) {
      return Fail(absl::FailedPreconditionError(absl::StrCat(id, " has no report yet: a job writes it when it ends")));
    }
    if (!status.ok()) return Fail(status);
    printer_.One({{"job_id", id}, {"file", target}}, "file", target + "\n");
    return 0;
  });
}

int Commands::Compare(const CompareFlags& flags) {
  v1::CompareRequest request;
  for (const std::string& arm : flags.arms) {
    // Short ids, as everywhere; the name stays what was written.
    const size_t equals = arm.find('=');
    std::string whole;
    for (const absl::string_view job :
         absl::StrSplit(equals == std::string::npos ? arm : arm.substr(equals + 1), ',', absl::SkipEmpty())) {
      const absl::StatusOr<std::string> id = client_->ResolveId(std::string(job));
      if (!id.ok()) return Fail(id.status());
      absl::StrAppend(&whole, whole.empty() ? "" : ",", *id);
    }
    request.add_arms(absl::StrCat(arm.substr(0, equals), "=", whole));
  }
  request.mutable_against()->Add(flags.against.begin(), flags.against.end());
  request.mutable_metrics()->Add(flags.metrics.begin(), flags.metrics.end());
  request.set_resamples(flags.resamples);
  request.set_confidence(flags.confidence);
  request.set_seed(flags.seed);
  const absl::StatusOr<v1::CompareResponse> compared = client_->Compare(request);
  if (!compared.ok()) return Fail(compared.status());
  const ordered_json document = ordered_json::parse(compared->json(), nullptr, false);
  printer_.One(document.is_object() ? document : ordered_json{{"text", compared->text()}}, "users", compared->text());
  return 0;
}

}  // namespace sluice::client
