// What may be wrong between here and there, each with what to do.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/cli/commands.h"
#include "client/cli/format.h"
#include "common/plan/plan.h"
#include "common/status/exit_code.h"
#include "common/version/version.h"

namespace sluice::client {
namespace {

using nlohmann::ordered_json;

// Ranks and tokens live by clocks; more than this is a broken time service.
constexpr absl::Duration kMaxClockDifference = absl::Seconds(2);
// Below this PyTorch's and NCCL's shared memory segments fail.
constexpr uint64_t kLittleShm = uint64_t{256} << 20;
constexpr uint64_t kLittleDisk = uint64_t{5} << 30;

struct Finding {
  std::string name;
  std::string result;  // "ok", "warning", "failed", "skipped"
  std::string message;
  std::string fix;
  ExitCode code = ExitCode::kFailed;
};

// The addresses of the host, or why there are none.
absl::StatusOr<std::vector<std::string>> Lookup(const std::string& host, const std::string& port) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (error != 0) return absl::NotFoundError(gai_strerror(error));
  const auto freed = absl::MakeCleanup([found] { freeaddrinfo(found); });
  std::vector<std::string> addresses;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    char text[NI_MAXHOST];
    if (getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof(text), nullptr, 0, NI_NUMERICHOST) == 0) {
      addresses.emplace_back(text);
    }
  }
  return addresses;
}

absl::Status Connect(const std::string& address, const std::string& port, absl::Duration timeout) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.c_str(), port.c_str(), &hints, &found) != 0) return absl::InternalError("no such address");
  const auto freed = absl::MakeCleanup([found] { freeaddrinfo(found); });
  const int connection = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (connection < 0) return absl::InternalError(std::strerror(errno));
  const auto closed = absl::MakeCleanup([connection] { close(connection); });
  if (connect(connection, found->ai_addr, found->ai_addrlen) == 0) return absl::OkStatus();
  if (errno != EINPROGRESS) return absl::UnavailableError(std::strerror(errno));
  pollfd waits = {connection, POLLOUT, 0};
  if (poll(&waits, 1, static_cast<int>(absl::ToInt64Milliseconds(timeout))) == 0) {
    return absl::DeadlineExceededError("no answer in time: a firewall may drop it");
  }
  int error = 0;
  socklen_t size = sizeof(error);
  getsockopt(connection, SOL_SOCKET, SO_ERROR, &error, &size);
  return error == 0 ? absl::OkStatus() : absl::UnavailableError(std::strerror(error));
}

}  // namespace

int Commands::Doctor() {
  std::vector<Finding> findings;
  const std::string& server = client_->options().server;
  const size_t colon = server.rfind(':');
  const std::string host = server.substr(0, colon), port = server.substr(colon + 1);
  const auto done = [&]() {
    ordered_json all = ordered_json::array();
    std::vector<std::vector<std::string>> rows;
    int code = 0;
    for (const Finding& one : findings) {
      all.push_back({{"name", one.name},
                     {"result", one.result},
                     {"message", one.message},
                     {"fix", one.fix.empty() ? ordered_json(nullptr) : ordered_json(one.fix)}});
      rows.push_back({console().color ? ColoredState(one.result) : one.result, one.name, one.message});
      if (!one.fix.empty()) rows.push_back({"", "", "  fix: " + one.fix});
      if (one.result == "failed" && code == 0) code = static_cast<int>(one.code);
    }
    printer_.List("checks", all, "name", Table(rows));
    return code;
  };

  const absl::StatusOr<std::vector<std::string>> addresses = Lookup(host, port);
  if (!addresses.ok() || addresses->empty()) {
    findings.push_back({"dns", "failed", absl::StrCat("'", host, "' has no address: ", addresses.status().message()),
                        "mend the name in --server, SLUICE_SERVER or the context, or this machine's resolver",
                        ExitCode::kTransient});
    return done();
  }
  findings.push_back({"dns", "ok", absl::StrCat(host, " is ", addresses->front()), ""});

  absl::Status connected;
  for (const std::string& address : *addresses) {
    connected = Connect(address, port, client_->options().timeout);
    if (connected.ok()) break;
  }
  if (!connected.ok()) {
    findings.push_back({"tcp", "failed", absl::StrCat("no connection to port ", port, ": ", connected.message()),
                        "start the coordinator there ('sluice-learner coordinator --address ...'), or open the port",
                        ExitCode::kTransient});
    return done();
  }
  findings.push_back({"tcp", "ok", absl::StrCat("port ", port, " takes connections"), ""});

  const absl::Time asked = absl::Now();
  const absl::StatusOr<v1::ServerInfoResponse> info = client_->ServerInfo(true);
  if (!info.ok()) {
    findings.push_back({"api", "failed", std::string(info.status().message()), "name a coordinator of this release",
                        ExitCodeFor(info.status())});
    return done();
  }
  findings.push_back({"api", "ok", absl::StrCat("a coordinator on ", info->host()), ""});

  // The checks of the server take their time; its clock was read within [asked, now].
  const absl::Time there = TimeOf(info->time()), answered = absl::Now();
  const absl::Duration off = there < asked ? asked - there : there > answered ? there - answered : absl::ZeroDuration();
  if (off > kMaxClockDifference) {
    findings.push_back({"clock", "failed", absl::StrCat("the clocks differ by ", absl::FormatDuration(off)),
                        "run a time service (chrony, systemd-timesyncd) on both machines"});
  } else {
    findings.push_back({"clock", "ok",
                        absl::StrCat("the clocks differ by less than ", absl::FormatDuration(kMaxClockDifference)),
                        ""});
  }

  std::vector<std::string> others;
  if (info->version() != ReleaseVersion()) others.push_back(absl::StrCat("the coordinator ", info->version()));
  for (const v1::MemberSummary& member : info->members()) {
    if (!member.version().empty() && member.version() == info->version()) continue;
    others.push_back(absl::StrCat("rank ", member.rank(), " on ", member.host(), " ",
                                  member.version().empty() ? "of an older release" : member.version()));
  }
  if (others.empty()) {
    findings.push_back({"versions", "ok", absl::StrCat("all are of release ", ReleaseVersion()), ""});
  } else {
    std::string text = absl::StrCat("sluicectl is ", ReleaseVersion());
    for (const std::string& one : others) absl::StrAppend(&text, ", ", one);
    findings.push_back({"versions", "warning", text, "bring all to one release, the coordinator first"});
  }

  if (info->epoch() == 0) {
    findings.push_back({"group", "warning", absl::StrCat("no learner group: ", info->group_reason()),
                        absl::StrCat("start ", info->ranks(), " x 'sluice-learner rank --coordinator ", server, "'")});
  } else {
    findings.push_back({"group", "ok", absl::StrCat(info->ranks(), " ranks, epoch ", info->epoch()), ""});
  }

  for (const v1::PlanCheck& check : info->checks()) {
    Finding finding{check.name(), CheckText(check.result()), check.message(), ""};
    if (check.result() == v1::PlanCheck::RESULT_FAILED) {
      finding.code = check.name() == "storage" ? ExitCode::kNoSpace : ExitCode::kTransient;
      finding.fix = check.name() == "storage" ? "give the coordinator --runs on a local or NFSv4 file system with room"
                                              : "look at the reward server's log; start it again with the job's --data";
    }
    findings.push_back(finding);
  }
  const std::string room =
      absl::StrCat(BytesText(static_cast<double>(info->free_bytes())), " free of ",
                   BytesText(static_cast<double>(info->total_bytes())), " in ", info->runs_folder());
  const bool little = info->free_bytes() < kLittleDisk;
  findings.push_back({"room", little ? "warning" : "ok", room,
                      little ? "free space: 'sluicectl delete JOB --files' removes a run folder" : ""});
  const bool narrow = info->shm_bytes() < kLittleShm;
  findings.push_back(
      {"shm", narrow ? "warning" : "ok",
       absl::StrCat("/dev/shm of the coordinator's machine has ", BytesText(static_cast<double>(info->shm_bytes()))),
       narrow ? "give containers a larger one (--shm-size=1g; a memory emptyDir on Kubernetes)" : ""});
  return done();
}

}  // namespace sluice::client
