// The rules between keys: what one key's value says about another's. Rules of
// one key alone (type, range) are field options of spec.proto.
#ifndef SLUICE_COMMON_SPEC_SPEC_RULES_H_
#define SLUICE_COMMON_SPEC_SPEC_RULES_H_

#include <functional>
#include <string>
#include <vector>

#include "sluice/v1/spec.pb.h"

namespace sluice {

// Why the key or section at `path` has no effect in a job whose given keys are
// `given`, in words that end with the remedy; "" if it has. A key without
// effect is refused when given, and gets no default.
std::string WhyUnused(const v1::JobSpec& given, const std::string& path);

// Takes what a rule found: the keys it looked at, the first of them to blame,
// and the message.
using ReportRule = std::function<void(const std::vector<std::string>& paths, const std::string& message)>;

// Runs every rule over a spec whose defaults are filled.
void CheckRules(const v1::JobSpec& effective, const ReportRule& report);

}  // namespace sluice

#endif  // SLUICE_COMMON_SPEC_SPEC_RULES_H_
