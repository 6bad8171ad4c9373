// The specs under examples/ are read by the rules of this version, so that a preset cannot rot.
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "common/file/file.h"
#include "common/spec/spec.h"

namespace sluice {
namespace {

TEST(PresetsTest, EverySpecOfTheExamplesIsAccepted) {
  int read = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(SLUICE_SOURCE_DIR "/examples")) {
    // A matrix is no job spec: its test (tests/integration/matrix_test.py) reads its arms' specs.
    if (entry.path().extension() != ".yaml" || entry.path().parent_path().filename() == "matrix") continue;
    const auto text = ReadFile(entry.path().string());
    ASSERT_TRUE(text.ok()) << text.status();
    const auto spec = ResolveSpec(*text, entry.path().filename().string());
    EXPECT_TRUE(spec.ok()) << spec.status();
    ++read;
  }
  EXPECT_GT(read, 30);
}

TEST(PresetsTest, EveryPresetHasItsRowInTheDocumentation) {
  const auto methods = ReadFile(SLUICE_SOURCE_DIR "/docs/methods.md");
  ASSERT_TRUE(methods.ok()) << methods.status();
  for (const auto& entry : std::filesystem::directory_iterator(SLUICE_SOURCE_DIR "/examples/presets")) {
    const std::string name = "`" + entry.path().stem().string() + "`";
    EXPECT_NE(methods->find(name), std::string::npos) << name;
  }
}

}  // namespace
}  // namespace sluice
