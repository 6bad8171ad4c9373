"""Each rule of tools/check_tree.py is broken once in a small tree, and must be found there."""

import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "tools"))
import check_tree

GUARD = "#ifndef {0}\n#define {0}\n{1}\n#endif\n"

CLEAN = {
    "common/time/CMakeLists.txt": "sluice_cc_library(common/time HDRS clock.h)",
    "common/time/clock.h": GUARD.format("SLUICE_COMMON_TIME_CLOCK_H_", "#include <functional>"),
    "common/model/CMakeLists.txt": "sluice_cc_library(common/model HDRS policy.h TORCH)",
    "common/model/policy.h": GUARD.format("SLUICE_COMMON_MODEL_POLICY_H_", "#include <ATen/core/Tensor.h>"),
    "common/rpc/CMakeLists.txt": "sluice_cc_library(common/rpc HDRS channel.h RPC)",
    "common/rpc/channel.h": GUARD.format("SLUICE_COMMON_RPC_CHANNEL_H_", "#include <grpcpp/grpcpp.h>"),
    "learner/ledger/CMakeLists.txt": "sluice_cc_library(learner/ledger SRCS ledger.cc HDRS ledger.h)",
    "learner/ledger/ledger.h": GUARD.format("SLUICE_LEARNER_LEDGER_LEDGER_H_", '#include "common/time/clock.h"'),
    "learner/ledger/ledger.cc": '#include "learner/ledger/ledger.h"\n',
    "learner/CMakeLists.txt": "sluice_cc_binary(sluice-learner SRCS main.cc TORCH RPC)",
    "learner/main.cc": '#include "common/model/policy.h"\n#include "common/rpc/channel.h"\n'
                       '#include "learner/ledger/ledger.h"\n#include <sluice/v1/job.pb.h>\n',
    "actor/rollout/CMakeLists.txt": "sluice_cc_library(actor/rollout HDRS loop.h)",
    "actor/rollout/loop.h": GUARD.format("SLUICE_ACTOR_ROLLOUT_LOOP_H_", ""),
    "tests/learner/ledger/CMakeLists.txt": "sluice_cc_test(learner/ledger SRCS ledger_test.cc)",
    "tests/learner/ledger/ledger_test.cc": '#include "learner/ledger/ledger.h"\n',
    "README.md": "The package is in .venv; see docs/data.md.\n",
}


def breaches(**changes):
    """Breaches of the clean tree with `changes`: path with / as __ and . as _DOT_ -> text."""
    tree = dict(CLEAN)
    tree.update({k.replace("__", "/").replace("_DOT_", "."): v for k, v in changes.items()})
    with tempfile.TemporaryDirectory() as root:
        for path, text in tree.items():
            os.makedirs(os.path.join(root, os.path.dirname(path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                file.write(text)
        return check_tree.check(root)[0]


class CheckTreeTest(unittest.TestCase):
    def assert_one(self, found, place, words):
        self.assertEqual(len(found), 1, found)
        self.assertTrue(found[0].startswith(place), found[0])
        self.assertIn(words, found[0])

    def test_a_tree_that_keeps_the_rules_has_no_breach(self):
        self.assertEqual(breaches(), [])

    def test_a_core_may_not_see_torch(self):
        found = breaches(learner__ledger__ledger_DOT_cc="#include <torch/torch.h>\n")
        self.assert_one(found, "learner/ledger/ledger.cc:1:", "only a (T) folder")

    def test_a_core_may_not_see_grpc_or_generated_code(self):
        for header in ("grpcpp/grpcpp.h", "google/protobuf/message.h", "sluice/v1/job.pb.h"):
            found = breaches(learner__ledger__ledger_DOT_cc=f"#include <{header}>\n")
            self.assert_one(found, "learner/ledger/ledger.cc:1:", "only an (R) folder")

    def test_a_core_may_not_include_a_torch_or_rpc_folder(self):
        for header, mark in (("common/model/policy.h", "(T)"), ("common/rpc/channel.h", "(R)")):
            found = breaches(learner__ledger__ledger_DOT_cc=f'\n#include "{header}"\n')
            self.assert_one(found, "learner/ledger/ledger.cc:2:", mark)

    def test_processes_may_not_include_one_another(self):
        found = breaches(learner__ledger__ledger_DOT_cc='#include "actor/rollout/loop.h"\n')
        self.assert_one(found, "learner/ledger/ledger.cc:1:", "processes meet in proto/")

    def test_common_knows_no_process(self):
        found = breaches(common__model__policy_DOT_h=GUARD.format(
            "SLUICE_COMMON_MODEL_POLICY_H_", '#include "actor/rollout/loop.h"'))
        self.assert_one(found, "common/model/policy.h:3:", "common/ may not include")

    def test_a_foundation_includes_foundations_alone(self):
        found = breaches(common__time__clock_DOT_h=GUARD.format(
            "SLUICE_COMMON_TIME_CLOCK_H_", '#include "common/catalog/trie.h"'),
            common__catalog__CMakeLists_DOT_txt="sluice_cc_library(common/catalog HDRS trie.h)",
            common__catalog__trie_DOT_h=GUARD.format("SLUICE_COMMON_CATALOG_TRIE_H_", ""))
        self.assert_one(found, "common/time/clock.h:3:", "a foundation may only include foundations")

    def test_libraries_form_no_ring(self):
        found = breaches(common__catalog__CMakeLists_DOT_txt="sluice_cc_library(common/catalog HDRS trie.h)",
                         common__catalog__trie_DOT_h=GUARD.format(
                             "SLUICE_COMMON_CATALOG_TRIE_H_", '#include "common/spec/spec.h"'),
                         common__spec__CMakeLists_DOT_txt="sluice_cc_library(common/spec HDRS spec.h)",
                         common__spec__spec_DOT_h=GUARD.format(
                             "SLUICE_COMMON_SPEC_SPEC_H_", '#include "common/catalog/trie.h"'))
        self.assert_one(found, "common/spec/spec.h:3:", "common/catalog -> common/spec -> common/catalog")

    def test_torch_headers_of_many_seconds_stay_out_of_headers(self):
        found = breaches(common__model__policy_DOT_h=GUARD.format(
            "SLUICE_COMMON_MODEL_POLICY_H_", "#include <torch/torch.h>"))
        self.assert_one(found, "common/model/policy.h:3:", "ATen/core/Tensor.h")

    def test_spdlog_stays_out_of_headers(self):
        found = breaches(common__time__clock_DOT_h=GUARD.format(
            "SLUICE_COMMON_TIME_CLOCK_H_", "#include <spdlog/spdlog.h>"))
        self.assert_one(found, "common/time/clock.h:3:", "common/log/log.h")

    def test_includes_start_at_the_root(self):
        found = breaches(learner__ledger__ledger_DOT_cc='#include "ledger.h"\n')
        self.assert_one(found, "learner/ledger/ledger.cc:1:", "start at the root")

    def test_tests_of_one_process_may_not_include_another(self):
        found = breaches(tests__learner__ledger__ledger_test_DOT_cc='#include "actor/rollout/loop.h"\n')
        self.assert_one(found, "tests/learner/ledger/ledger_test.cc:1:", "tests/integration")

    def test_a_test_that_sees_grpc_says_so_in_cmake(self):
        found = breaches(tests__learner__ledger__ledger_test_DOT_cc="#include <grpcpp/grpcpp.h>\n")
        self.assert_one(found, "tests/learner/ledger/ledger_test.cc:1:", "sluice_cc_test(... RPC)")

    def test_guards_follow_the_path(self):
        found = breaches(actor__rollout__loop_DOT_h=GUARD.format("LOOP_H_", ""))
        self.assert_one(found, "actor/rollout/loop.h:1:", "SLUICE_ACTOR_ROLLOUT_LOOP_H_")

    def test_a_body_that_is_included_twice_may_say_that_it_has_no_guard(self):
        self.assertEqual(breaches(actor__rollout__loop_DOT_h="// No include guard: included once a width.\n"), [])

    def test_a_file_that_nothing_builds_is_found(self):
        found = breaches(learner__ledger__forgotten_DOT_cc="")
        self.assert_one(found, "learner/ledger/forgotten.cc:1:", "nothing builds it")

    def test_the_page_on_architecture_lists_every_library(self):
        page = "| `common/time` `model` | | x |\n| `common/rpc` | (R) | x |\n| `actor/rollout` | | x |\n"
        found = breaches(docs__architecture_DOT_md=page)
        self.assert_one(found, "docs/architecture.md:1:", "lacks learner/ledger")

    def test_paths_of_one_machine_are_found_and_relative_ones_are_not(self):
        self.assert_one(breaches(README_DOT_md="see /" + "work/main\n"), "README.md:1:", "path of one machine")
        self.assert_one(breaches(README_DOT_md="\nin '/" + "tmp/x'\n"), "README.md:2:", "path of one machine")
        self.assertEqual(breaches(README_DOT_md="docs/wo" "rk/x, ${DIR}/tm" "p/x and $TMPDIR/ro" "ot/x\n"), [])

    def test_registry_hosts_are_found(self):
        self.assert_one(breaches(README_DOT_md="https://pypi" + ".org/simple\n"), "README.md:1:", "package registry")


if __name__ == "__main__":
    unittest.main()
