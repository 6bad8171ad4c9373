#include "common/object_store/object_store.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace sluice {
namespace {

constexpr size_t kMaxKeyBytes = 900;

// The length of the UTF-8 sequence that `bytes` starts with, or 0 if it starts with none.
size_t Utf8Length(absl::string_view bytes) {
  const auto at = [bytes](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char first = at(0);
  const size_t length = first < 0x80   ? 1
                        : first < 0xC2 ? 0
                        : first < 0xE0 ? 2
                        : first < 0xF0 ? 3
                        : first < 0xF5 ? 4
                                       : 0;
  if (length == 0 || bytes.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xC0) != 0x80) return 0;
  }
  // Longer than needed, a surrogate, or beyond U+10FFFF.
  if (first == 0xE0 && at(1) < 0xA0) return 0;
  if (first == 0xED && at(1) > 0x9F) return 0;
  if (first == 0xF0 && at(1) < 0x90) return 0;
  if (first == 0xF4 && at(1) > 0x8F) return 0;
  return length;
}

bool HasBadCharacter(absl::string_view key) {
  while (!key.empty()) {
    const unsigned char first = static_cast<unsigned char>(key[0]);
    const size_t length = Utf8Length(key);
    if (length == 0 || first < 0x20 || first == 0x7F || first == '\\') return true;
    key.remove_prefix(length);
  }
  return false;
}

bool IsDots(absl::string_view part) { return part == "." || part == ".."; }

absl::Status BadKey(absl::string_view key, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("'", absl::CHexEscape(key.substr(0, 200)), "' is no key of an object: ", why));
}

absl::Status CheckCharacters(absl::string_view key) {
  if (key.size() > kMaxKeyBytes) {
    return BadKey(key, absl::StrCat("it has ", key.size(), " bytes, more than ", kMaxKeyBytes));
  }
  if (HasBadCharacter(key)) return BadKey(key, "it has a control character, a backslash or bytes that are not UTF-8");
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckKey(absl::string_view key) {
  if (absl::Status status = CheckCharacters(key); !status.ok()) return status;
  for (absl::string_view part : absl::StrSplit(key, '/')) {
    if (part.empty() || IsDots(part)) return BadKey(key, "want parts between single slashes, none of them '.' or '..'");
  }
  if (absl::EndsWith(key, ".tmp")) return BadKey(key, "names in .tmp are those of unfinished files");
  return absl::OkStatus();
}

absl::Status CheckPrefix(absl::string_view prefix) {
  if (absl::Status status = CheckCharacters(prefix); !status.ok()) return status;
  const std::vector<absl::string_view> parts = absl::StrSplit(prefix, '/');
  // The last part is the start of a name or, after a slash, empty.
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    if (parts[i].empty() || IsDots(parts[i])) return BadKey(prefix, "want parts between single slashes");
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> ObjectExists(ObjectStore* store, const std::string& key) {
  const absl::StatusOr<ObjectInfo> info = store->Head(key);
  if (info.ok()) return true;
  if (absl::IsNotFound(info.status())) return false;
  return info.status();
}

}  // namespace sluice
