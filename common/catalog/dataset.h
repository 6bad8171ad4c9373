// A prepared data set: users' events in time order, the split, the catalog. Read from a folder that the
// `prepare` job wrote, every file checked against the manifest's SHA-256.
//
// An event of a user is labelled with the split that it is a target of; its history is every earlier event of
// that user, cut to the latest max_history. Events that sft and rankers never see are targets of rl alone (kReserved),
// or of nothing (kContext). Immutable after Load; thread-safe.
#ifndef SLUICE_COMMON_CATALOG_DATASET_H_
#define SLUICE_COMMON_CATALOG_DATASET_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/catalog/market_truth.h"
#include "common/catalog/trie.h"
#include "common/catalog/vocabulary.h"

namespace sluice {

// Of a data set folder: float32 [items, dim], the vectors that its semantic IDs were made from. Absent where an index
// file gave the IDs.
inline constexpr char kItemVectorsFile[] = "item_vectors.npy";

enum class SplitLabel : uint8_t {
  kTrain = 0,
  kValidation = 1,
  kTest = 2,
  kReserved = 3,  // a prompt for rl, kept out of sft and of rankers
  kContext = 4,   // history of later events only
};
inline constexpr SplitLabel kLastSplitLabel = SplitLabel::kContext;

// One prediction task: predict event `position` of `user` from the events before it.
struct Example {
  int32_t user = 0;
  int32_t position = 0;  // >= 1: there is at least one event of history
};

class Dataset {
 public:
  // NotFound: no folder or file; DataLoss: a digest differs (names the file and says to run prepare again);
  // InvalidArgument: contents that contradict each other.
  static absl::StatusOr<std::shared_ptr<const Dataset>> Load(const std::string& folder);

  // Writes a folder: aside, fsynced, manifest last, then renamed. `name` and `notes` (e.g. how ties in time are
  // ordered) go into the manifest. item_codes: [items, levels]. AlreadyExists if the folder exists.
  struct Contents {
    std::string name;
    std::vector<std::string> notes;
    std::vector<std::string> item_names;
    std::vector<std::string> user_names;
    std::vector<int64_t> first_event;     // [users + 1]
    std::vector<int32_t> event_item;      // [events]
    std::vector<SplitLabel> event_split;  // [events]
    std::vector<int32_t> item_codes;      // [items, levels]
    int levels = 0;
    int codes = 0;
    int32_t first_token = 0;  // SidVocabulary::first
    int max_history = 20;
    std::shared_ptr<const MarketTruth> truth;  // null: a data set of real events
  };
  // InvalidArgument: contents that Load would refuse. A DatasetWriter adds further files.
  static absl::Status Write(const std::string& folder, const Contents& contents);
  // A data set in memory, for tests and generators. The same checks as Load.
  static absl::StatusOr<std::shared_ptr<const Dataset>> FromContents(Contents contents);

  const std::string& name() const { return contents_.name; }
  const std::vector<std::string>& notes() const { return contents_.notes; }
  int64_t num_users() const { return static_cast<int64_t>(contents_.first_event.size()) - 1; }
  int64_t num_items() const { return static_cast<int64_t>(contents_.item_names.size()); }
  int64_t num_events() const { return static_cast<int64_t>(contents_.event_item.size()); }
  int max_history() const { return contents_.max_history; }
  const SidVocabulary& vocabulary() const { return vocabulary_; }
  const Trie& trie() const { return *trie_; }
  std::shared_ptr<const Trie> shared_trie() const { return trie_; }
  const std::string& item_name(int32_t item) const { return contents_.item_names[item]; }
  const std::string& user_name(int32_t user) const { return contents_.user_names[user]; }

  // All events of a user, oldest first, and their labels.
  absl::Span<const int32_t> Events(int32_t user) const;
  absl::Span<const SplitLabel> Labels(int32_t user) const;
  // The user's events labelled kTrain (a prefix of Events under leave-one-out).
  std::vector<int32_t> TrainingEvents(int32_t user) const;

  // Every event with that label that has a history, ordered by user, then position.
  std::vector<Example> Examples(SplitLabel label) const;
  // At most max_history events before the example's, oldest first.
  absl::Span<const int32_t> History(const Example& example) const;
  int32_t Target(const Example& example) const;

  // Of a generated market; null otherwise.
  const MarketTruth* truth() const { return contents_.truth.get(); }
  std::shared_ptr<const MarketTruth> shared_truth() const { return contents_.truth; }

  // SHA-256 of the manifest; "" for a data set in memory.
  const std::string& digest() const { return digest_; }
  const std::string& folder() const { return folder_; }

 private:
  Dataset() = default;
  Contents contents_;
  SidVocabulary vocabulary_;
  std::shared_ptr<const Trie> trie_;
  std::string digest_;
  std::string folder_;
};

// Writes a data set folder in two steps, so that other files (a trained ranker) can be part of it:
//
//   auto writer = DatasetWriter::Create(folder);            // makes <folder>.partial
//   ... write files and folders under writer->staging() ...
//   writer->Finish(contents);                               // arrays, manifest with the digests of all, rename
//
// A folder that exists under its own name is therefore complete. Not thread-safe; one writer a folder.
class DatasetWriter {
 public:
  // Removes what a killed writer of the same folder left. AlreadyExists if the folder exists.
  static absl::StatusOr<std::unique_ptr<DatasetWriter>> Create(const std::string& folder);
  // Removes the staging folder, unless finished.
  ~DatasetWriter();
  DatasetWriter(const DatasetWriter&) = delete;
  DatasetWriter& operator=(const DatasetWriter&) = delete;

  const std::string& staging() const { return staging_; }
  // Every file below staging() that is there now goes into the manifest, and Load checks it.
  absl::Status Finish(const Dataset::Contents& contents);

 private:
  explicit DatasetWriter(std::string folder) : folder_(std::move(folder)), staging_(folder_ + ".partial") {}
  const std::string folder_;
  const std::string staging_;
  bool finished_ = false;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_CATALOG_DATASET_H_
