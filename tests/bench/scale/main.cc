// scale_simulator [SPEC.json] [KEY=VALUE ...]: runs one simulation and prints its spec and results as JSON. A key is a
// field of ScaleSpec (simulator.h says what each means). --timing adds what the real books cost on this machine.

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "tests/bench/scale/simulator.h"

namespace {

constexpr char kHelp[] =
    "scale_simulator [--timing] [SPEC.json] [KEY=VALUE ...]\n"
    "Simulates a job's flow with the learner's own books on a virtual clock; prints JSON. Keys and their defaults:\n";

absl::StatusOr<nlohmann::json> ReadArguments(int argc, char** argv, bool* timing) {
  nlohmann::json spec = nlohmann::json::object();
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--timing") {
      *timing = true;
      continue;
    }
    const size_t equals = word.find('=');
    std::string text = equals == std::string::npos ? "" : word.substr(equals + 1);
    if (equals == std::string::npos) {
      SLUICE_ASSIGN_OR_RETURN(text, sluice::ReadFile(word, 1 << 20));
    }
    const nlohmann::json value = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (value.is_discarded()) return absl::InvalidArgumentError(absl::StrCat("'", word, "': not JSON"));
    if (equals != std::string::npos) {
      spec[word.substr(0, equals)] = value;
    } else if (value.is_object()) {
      spec.update(value);
    } else {
      return absl::InvalidArgumentError(absl::StrCat("'", word, "': want an object of keys"));
    }
  }
  return spec;
}

absl::Status Run(int argc, char** argv) {
  bool timing = false;
  SLUICE_ASSIGN_OR_RETURN(const nlohmann::json arguments, ReadArguments(argc, argv, &timing));
  SLUICE_ASSIGN_OR_RETURN(const sluice::scale::ScaleSpec spec, sluice::scale::ScaleSpec::FromJson(arguments));
  SLUICE_ASSIGN_OR_RETURN(const sluice::scale::ScaleResult result, sluice::scale::Simulate(spec));
  const nlohmann::ordered_json out = {{"spec", spec.ToJson()}, {"result", result.ToJson(timing)}};
  std::printf("%s\n", out.dump(2).c_str());
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && (std::string(argv[1]) == "--help" || std::string(argv[1]) == "-h")) {
    std::printf("%s%s\n", kHelp, sluice::scale::ScaleSpec().ToJson().dump(2).c_str());
    return 0;
  }
  const absl::Status status = Run(argc, argv);
  if (status.ok()) return 0;
  std::fprintf(stderr, "scale_simulator: %s\n", std::string(status.message()).c_str());
  return static_cast<int>(sluice::ExitCodeFor(status));
}
