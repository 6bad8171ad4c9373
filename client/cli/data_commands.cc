// Data that go to the coordinator's machine: pushed in pieces, addressed by digest.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/format.h"
#include "common/file/file.h"
#include "common/plan/plan.h"
#include "common/progress/progress.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "common/time/clock.h"

namespace sluice::client {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr uint64_t kPieceBytes = 1 << 20;
// A file that the server dropped, since its bytes were damaged there, is put so often.
constexpr int kMaxTries = 3;

// The files at `path`, a folder or one file, by path relative to it.
absl::StatusOr<v1::BeginPushRequest> ManifestOf(const std::string& path, std::string* folder) {
  v1::BeginPushRequest request;
  std::vector<std::string> names;
  std::error_code error;
  *folder = path;
  if (fs::is_directory(path, error)) {
    for (auto it = fs::recursive_directory_iterator(path, error); !error && it != fs::recursive_directory_iterator();
         it.increment(error)) {
      if (it->is_symlink()) {
        return absl::InvalidArgumentError(
            absl::StrCat("'", it->path().string(), "' is a link; what is pushed must be the files themselves"));
      }
      if (it->is_regular_file()) names.push_back(it->path().lexically_relative(path).generic_string());
    }
  } else if (fs::is_regular_file(path, error)) {
    const fs::path file(path);
    names.push_back(file.filename().string());
    *folder = file.parent_path().string();
  } else {
    return absl::NotFoundError(absl::StrCat("there is neither a file nor a folder '", path, "'", RelativeTo(path)));
  }
  if (error) return absl::InternalError(absl::StrCat("cannot list '", path, "': ", error.message()));
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    const std::string file = JoinPath(*folder, name);
    v1::DataFile* one = request.add_files();
    one->set_path(name);
    SLUICE_ASSIGN_OR_RETURN(const int64_t bytes, FileBytes(file));
    one->set_bytes(static_cast<uint64_t>(bytes));
    SLUICE_ASSIGN_OR_RETURN(*one->mutable_sha256(), FileSha256(file));
  }
  return request;
}

// A full quota is a full storage, and no retry helps.
absl::Status AsStorage(const absl::Status& status) {
  return absl::IsResourceExhausted(status) ? NoSpaceError(status.message()) : status;
}

}  // namespace

int Commands::PushData(const std::string& path, const std::string& name) {
  std::string folder;
  absl::StatusOr<v1::BeginPushRequest> manifest = ManifestOf(path, &folder);
  if (!manifest.ok()) return Fail(manifest.status());
  manifest->set_name(name.empty() ? fs::path(path).lexically_normal().filename().string() : name);
  uint64_t total = 0;
  for (const v1::DataFile& file : manifest->files()) total += file.bytes();
  ProgressPrinter::Options options;
  options.terminal = console().err_terminal;
  ProgressPrinter progress(console().err, MonotonicClock(), options);
  const auto put_all = [&]() -> absl::StatusOr<v1::BeginPushResponse> {
    SLUICE_ASSIGN_OR_RETURN(v1::BeginPushResponse begun, client_->BeginPush(*manifest));
    if (begun.complete()) return begun;
    if (begun.have_size() != manifest->files_size()) return absl::DataLossError("the coordinator counts other files");
    uint64_t done = 0;
    for (int i = 0; i < manifest->files_size(); ++i) done += begun.have(i);
    if (done > 0) Talk(absl::StrCat("goes on: ", BytesText(static_cast<double>(done)), " are there already"));
    for (int i = 0; i < manifest->files_size(); ++i) {
      const v1::DataFile& file = manifest->files(i);
      SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<InputFile> input, InputFile::Open(JoinPath(folder, file.path())));
      for (uint64_t offset = begun.have(i); offset < file.bytes();) {
        if (stop_) return absl::CancelledError("stopped; the same command goes on from here");
        std::string data(std::min(kPieceBytes, file.bytes() - offset), '\0');
        SLUICE_RETURN_IF_ERROR(input->ReadAt(static_cast<int64_t>(offset), data.data(), data.size()));
        v1::PutRequest request;
        request.set_digest(begun.digest());
        request.set_path(file.path());
        request.set_offset(offset);
        request.set_chunk_sha256(Sha256(data));
        request.set_data(std::move(data));
        SLUICE_ASSIGN_OR_RETURN(const v1::PutResponse answer, client_->Put(request));
        if (answer.have() <= offset) return absl::DataLossError("the coordinator does not take the bytes");
        done += answer.have() - offset;
        offset = answer.have();
        if (!console().quiet) {
          progress.Update("push", "bytes", static_cast<int64_t>(done), static_cast<int64_t>(total));
        }
      }
    }
    return begun;
  };
  for (int tries = 1;; ++tries) {
    const absl::StatusOr<v1::BeginPushResponse> begun = put_all();
    if (!begun.ok()) return Fail(AsStorage(begun.status()));
    const absl::StatusOr<v1::CommitPushResponse> committed = client_->CommitPush(begun->digest());
    if (absl::IsDataLoss(committed.status()) && tries < kMaxTries) continue;
    if (!committed.ok()) return Fail(AsStorage(committed.status()));
    const std::string address = absl::StrCat("digest:", begun->digest());
    printer_.One({{"digest", begun->digest()},
                  {"existed", begun->complete()},
                  {"bytes", total},
                  {"files", manifest->files_size()},
                  {"folder", committed->folder()}},
                 "digest", address + "\n");
    Talk(begun->complete() ? "these files were pushed before" : "pushed; a spec says");
    Talk(absl::StrCat("  data: ", address, "        (a prepared data set)\n  prepare: {events: ", address, "/FILE}"));
    return 0;
  }
}

int Commands::ListData() {
  const absl::StatusOr<v1::ListDataResponse> listed = client_->ListData();
  if (!listed.ok()) return Fail(listed.status());
  ordered_json all = ordered_json::array();
  std::vector<std::vector<std::string>> rows = {{"DIGEST", "FILES", "SIZE", "PUSHED", "NAME"}};
  for (const v1::DataFolder& folder : listed->folders()) {
    all.push_back({{"digest", folder.digest()},
                   {"name", folder.name()},
                   {"bytes", folder.bytes()},
                   {"files", folder.files()},
                   {"pushed", TimeJson(true, folder.pushed())},
                   {"folder", folder.folder()}});
    rows.push_back({console().format == OutputFormat::kWide ? folder.digest() : folder.digest().substr(0, 12),
                    absl::StrCat(folder.files()), BytesText(static_cast<double>(folder.bytes())),
                    LocalTime(folder.pushed()), folder.name()});
  }
  printer_.List("data", all, "digest", rows.size() > 1 ? Table(rows) : "");
  Talk(absl::StrCat(BytesText(static_cast<double>(listed->used_bytes())), " of ",
                    BytesText(static_cast<double>(listed->quota_bytes())), " used"));
  return 0;
}

int Commands::RemoveData(const std::string& digest) {
  const absl::StatusOr<v1::RemoveDataResponse> removed = client_->RemoveData(digest);
  if (!removed.ok()) return Fail(removed.status());
  Talk(absl::StrCat("removed; ", BytesText(static_cast<double>(removed->freed_bytes())), " are free again"));
  return 0;
}

}  // namespace sluice::client
