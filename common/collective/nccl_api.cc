#include "common/collective/nccl_api.h"

#include <dlfcn.h>
#include <link.h>

#include <climits>
#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr int kOldestVersion = 22800;
constexpr char kRemedy[] =
    "install NVIDIA's wheels (.venv/bin/pip install --no-deps -r requirements-gpu.txt), or reduce over Gloo "
    "(--collective gloo)";

// Where the wheel puts NCCL: LibTorch's own way to it is the same.
std::string WheelPath() {
  void* const torch = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  char folder[PATH_MAX] = ".";
  if (torch != nullptr) dlinfo(torch, RTLD_DI_ORIGIN, folder);
  return absl::StrCat(folder, "/../../nvidia/nccl/lib/libnccl.so.2");
}

absl::StatusOr<void*> OpenFirst(const std::vector<std::string>& libraries) {
  std::string why;
  for (const std::string& path : libraries) {
    if (void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    const char* const error = dlerror();
    absl::StrAppend(&why, why.empty() ? "" : "; ", error != nullptr ? error : path);
  }
  return absl::FailedPreconditionError(absl::StrCat("cannot load NCCL (", why, "); ", kRemedy));
}

template <typename Result, typename... Arguments>
absl::Status Resolve(void* library, const char* name, std::function<Result(Arguments...)>* function) {
  void* const symbol = dlsym(library, name);
  if (symbol == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("NCCL's library has no function ", name, "; ", kRemedy));
  }
  *function = reinterpret_cast<Result (*)(Arguments...)>(symbol);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<NcclApi> LoadNccl() { return LoadNcclFrom({"libnccl.so.2", WheelPath()}); }

absl::StatusOr<NcclApi> LoadNcclFrom(const std::vector<std::string>& libraries) {
  SLUICE_ASSIGN_OR_RETURN(void* const library, OpenFirst(libraries));
  NcclApi api;
  SLUICE_RETURN_IF_ERROR(Resolve(library, "ncclGetVersion", &api.get_version));
  int version = 0;
  if (api.get_version(&version) != NcclResult::kSuccess || version < kOldestVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("want NCCL ", kOldestVersion, " (2.28.0) or later, got ", version, "; ", kRemedy));
  }
  SLUICE_RETURN_IF_ERROR(Resolve(library, "ncclGetErrorString", &api.get_error_string));
  SLUICE_RETURN_IF_ERROR(Resolve(library, "ncclGetLastError", &api.get_last_error));
  SLUICE_RETURN_IF_ERROR(Resolve(library, "ncclGetUniqueId", &api.get_unique_id));
  SLUICE_RETURN_IF_ERROR(Resolve(library, "ncclCommInitRankConfig", &api.comm_init_rank_config));
  SLUICE_RETURN_IF_ERROR(Resolve(library, "ncclCommGetAsyncError", &api.comm_get_async_error));
  SLUICE_RETURN_IF_ERROR(Resolve(library, "ncclAllReduce", &api.all_reduce));
  SLUICE_RETURN_IF_ERROR(Resolve(library, "ncclBroadcast", &api.broadcast));
  SLUICE_RETURN_IF_ERROR(Resolve(library, "ncclGroupStart", &api.group_start));
  SLUICE_RETURN_IF_ERROR(Resolve(library, "ncclGroupEnd", &api.group_end));
  SLUICE_RETURN_IF_ERROR(Resolve(library, "ncclCommFinalize", &api.comm_finalize));
  SLUICE_RETURN_IF_ERROR(Resolve(library, "ncclCommDestroy", &api.comm_destroy));
  SLUICE_RETURN_IF_ERROR(Resolve(library, "ncclCommAbort", &api.comm_abort));
  return api;
}

}  // namespace sluice
