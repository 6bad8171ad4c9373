#include "common/service_manager/service_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ServiceManagerTest : public ::testing::Test {
 protected:
  ServiceManager::Send Keep() {
    return [this](const std::string& address, absl::string_view message) {
      EXPECT_EQ(address, "@manager");
      messages_.emplace_back(message);
      return result_;
    };
  }

  std::vector<std::string> messages_;
  absl::Status result_;
};

TEST_F(ServiceManagerTest, ALifeIsToldInItsOrder) {
  ServiceManager manager("@manager", Keep());
  manager.SetStatus("looking for a rank");
  manager.Ready("attached");
  manager.SetStatus("looking for a rank");
  manager.Ready("attached");
  manager.Stopping("finishing the lease", absl::Milliseconds(45'500));
  EXPECT_THAT(messages_, ElementsAre("STATUS=looking for a rank\n", "READY=1\nSTATUS=attached\n",
                                     "STATUS=looking for a rank\n", "STATUS=attached\n",
                                     "STOPPING=1\nEXTEND_TIMEOUT_USEC=45500000\nSTATUS=finishing the lease\n"));
}

TEST_F(ServiceManagerTest, NothingIsSaidTwiceNorAfterTheEnd) {
  ServiceManager manager("@manager", Keep());
  manager.Ready("serving");
  manager.SetStatus("serving");
  manager.Stopping("calls in progress");
  manager.Stopping("again");
  manager.SetStatus("serving");
  manager.Ready("serving");
  EXPECT_THAT(messages_, ElementsAre("READY=1\nSTATUS=serving\n", "STOPPING=1\nSTATUS=calls in progress\n"));
}

TEST_F(ServiceManagerTest, WithoutASocketNobodyIsTold) {
  ServiceManager manager("", Keep());
  manager.Ready("serving");
  manager.Stopping("over");
  EXPECT_THAT(messages_, IsEmpty());
}

TEST_F(ServiceManagerTest, AStatusIsOneShortLine) {
  ServiceManager manager("@manager", Keep());
  manager.SetStatus("one\nREADY=1\ttwo");
  // 199 bytes and a character of two: the 200th byte would be its half.
  manager.SetStatus(std::string(199, 'x') + "\xC3\xA9" + "more");
  ASSERT_THAT(messages_, SizeIs(2));
  EXPECT_EQ(messages_[0], "STATUS=one READY=1 two\n");
  EXPECT_EQ(messages_[1], "STATUS=" + std::string(199, 'x') + "\n");
}

TEST_F(ServiceManagerTest, ASocketThatFailsIsNamedOnceAndChangesNothingElse) {
  ServiceManager manager("@manager", Keep());
  result_ = absl::UnavailableError("not sent: Connection refused");
  ::testing::internal::CaptureStderr();
  manager.Ready("serving");
  manager.SetStatus("idle");
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("NOTIFY_SOCKET=@manager error=not sent: Connection refused"));
  EXPECT_EQ(said.find("NOTIFY_SOCKET"), said.rfind("NOTIFY_SOCKET"));
  EXPECT_THAT(messages_, SizeIs(2)) << "a manager that comes back is told";
}

// A receiver of its own, at a path or an abstract name.
class Receiver {
 public:
  explicit Receiver(const std::string& address) : descriptor_(::socket(AF_UNIX, SOCK_DGRAM, 0)) {
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    std::memcpy(name.sun_path, address.data(), address.size());
    if (address[0] == '@') name.sun_path[0] = '\0';
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size());
    EXPECT_EQ(::bind(descriptor_, reinterpret_cast<const sockaddr*>(&name), size), 0) << std::strerror(errno);
  }
  ~Receiver() { ::close(descriptor_); }

  std::string Next() const {
    char bytes[512];
    const ssize_t size = ::recv(descriptor_, bytes, sizeof(bytes), MSG_DONTWAIT);
    return size < 0 ? "nothing" : std::string(bytes, static_cast<size_t>(size));
  }

 private:
  const int descriptor_;
};

TEST(SendToSocketTest, APathAndAnAbstractNameAreReached) {
  const std::string path = ::testing::TempDir() + "/service_manager.socket";
  ::unlink(path.c_str());
  for (const std::string& address : {path, absl::StrCat("@sluice-service-manager-", ::getpid())}) {
    const Receiver receiver(address);
    EXPECT_TRUE(SendToSocket(address, "READY=1\n").ok()) << address;
    EXPECT_EQ(receiver.Next(), "READY=1\n");
    EXPECT_EQ(receiver.Next(), "nothing");
  }
  EXPECT_EQ(SendToSocket(path, "READY=1\n").code(), absl::StatusCode::kUnavailable) << "nobody is there any more";
  ::unlink(path.c_str());
}

TEST(SendToSocketTest, WhatIsNoAddressIsRefused) {
  for (const std::string& address :
       {std::string("relative"), std::string("vsock:2:1234"), std::string("@"), "/" + std::string(200, 'x')}) {
    const absl::Status status = SendToSocket(address, "READY=1\n");
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_THAT(std::string(status.message()), EndsWith(absl::StrCat("got '", address, "'")));
  }
}

TEST(TakeNotifySocketTest, ItLeavesTheEnvironment) {
  setenv("NOTIFY_SOCKET", "/run/systemd/notify", 1);
  EXPECT_EQ(TakeNotifySocket(), "/run/systemd/notify");
  EXPECT_EQ(std::getenv("NOTIFY_SOCKET"), nullptr);
  EXPECT_EQ(TakeNotifySocket(), "");
}

}  // namespace
}  // namespace sluice
