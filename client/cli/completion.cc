#include "client/cli/completion.h"

#include <functional>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/version/version.h"

namespace sluice::client {
namespace {

using Visit = std::function<void(const CLI::App& command, const std::vector<std::string>& path)>;

// Every command below `app`, in the order of its description; `path` is its words.
void ForEachCommand(const CLI::App& app, std::vector<std::string> path, const Visit& visit) {
  visit(app, path);
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    std::vector<std::string> below = path;
    below.push_back(command->get_name());
    ForEachCommand(*command, below, visit);
  }
}

struct OptionFacts {
  std::vector<std::string> names;  // "--set", "-o"
  std::string doc;
  bool takes_value = false;
  bool positional = false;
  std::string placeholder;  // of a positional
};

std::vector<OptionFacts> OptionsOf(const CLI::App& app) {
  std::vector<OptionFacts> found;
  for (const CLI::Option* option : app.get_options([](const CLI::Option*) { return true; })) {
    OptionFacts facts;
    for (const std::string& name : option->get_lnames()) facts.names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) facts.names.push_back("-" + name);
    facts.doc = option->get_description();
    facts.positional = facts.names.empty();
    facts.placeholder = option->get_single_name();
    facts.takes_value = option->get_items_expected_max() > 0;
    found.push_back(std::move(facts));
  }
  return found;
}

std::string Words(const CLI::App& app) {
  std::vector<std::string> words;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    words.push_back(command->get_name());
  }
  for (const OptionFacts& option : OptionsOf(app)) words.insert(words.end(), option.names.begin(), option.names.end());
  return absl::StrJoin(words, " ");
}

bool TakesJob(const CLI::App& app) {
  for (const OptionFacts& option : OptionsOf(app)) {
    if (option.positional && option.placeholder == "JOB") return true;
  }
  return false;
}

// Inside single quotes of a shell.
std::string Quoted(const std::string& text) { return absl::StrReplaceAll(text, {{"'", "'\\''"}}); }

constexpr char kJobs[] = "sluicectl list -o name --timeout 1 2>/dev/null";

std::string BashScript(const CLI::App& app) {
  std::string cases;
  std::set<std::string> known;
  ForEachCommand(app, {}, [&](const CLI::App& command, const std::vector<std::string>& path) {
    if (path.empty()) return;
    known.insert(path.back());
    absl::StrAppend(&cases, "      '", absl::StrJoin(path, " "), "') words='", Words(command), "'");
    if (TakesJob(command)) absl::StrAppend(&cases, "; jobs=1");
    absl::StrAppend(&cases, "; break ;;\n");
  });
  return absl::StrCat(R"x(# bash completion of sluicectl: source <(sluicectl completion bash)
_sluicectl() {
  local current="${COMP_WORDS[COMP_CWORD]}" path='' word words jobs=''
  for word in "${COMP_WORDS[@]:1:$((COMP_CWORD - 1))}"; do
    case ' )x",
                      absl::StrJoin(known, " "), R"x( ' in
      *" $word "*) path="${path:+$path }$word" ;;
    esac
  done
  words=')x",
                      Words(app), R"x('
  while [[ -n $path ]]; do
    case "$path" in
)x",
                      cases, R"x(    esac
    [[ $path == *' '* ]] && path="${path% *}" || path=''
  done
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [[ -n $jobs && $current != -* ]]; then
    COMPREPLY+=($(compgen -W "$()x",
                      kJobs, R"x()" -- "$current"))
  elif [[ $current != -* ]]; then
    COMPREPLY+=($(compgen -f -- "$current"))
  fi
}
complete -o filenames -F _sluicectl sluicectl
)x");
}

std::string ZshScript(const CLI::App& app) {
  // One completion engine for both: zsh runs bash's. compinit loads the file as the function of the first completion,
  // which is then answered too.
  return absl::StrCat(
      "#compdef sluicectl\n# zsh completion of sluicectl: source <(sluicectl completion zsh)\n"
      "autoload -U +X bashcompinit && bashcompinit\n",
      BashScript(app), "(( ! $+compstate )) || _bash_complete -o filenames -F _sluicectl\n");
}

std::string FishScript(const CLI::App& app) {
  std::string text = "# fish completion of sluicectl: sluicectl completion fish | source\n";
  ForEachCommand(app, {}, [&](const CLI::App& command, const std::vector<std::string>& path) {
    // A command's words count once all words before them are there.
    std::string when;
    for (const std::string& word : path) {
      absl::StrAppend(&when, when.empty() ? "" : "; and ", "__fish_seen_subcommand_from ", word);
    }
    std::vector<std::string> children;
    for (const CLI::App* child : command.get_subcommands([](const CLI::App*) { return true; })) {
      children.push_back(child->get_name());
    }
    const std::string none_of_them =
        children.empty() ? "" : absl::StrCat("not __fish_seen_subcommand_from ", absl::StrJoin(children, " "));
    for (const CLI::App* child : command.get_subcommands([](const CLI::App*) { return true; })) {
      absl::StrAppend(&text, "complete -c sluicectl -n '", when, when.empty() ? "" : "; and ", none_of_them, "' -f -a ",
                      child->get_name(), " -d '", Quoted(child->get_description()), "'\n");
    }
    for (const OptionFacts& option : OptionsOf(command)) {
      if (option.positional) continue;
      absl::StrAppend(&text, "complete -c sluicectl", when.empty() ? "" : absl::StrCat(" -n '", when, "'"));
      for (const std::string& name : option.names) {
        absl::StrAppend(&text, name[1] == '-' ? " -l " : " -s ", name.substr(name[1] == '-' ? 2 : 1));
      }
      absl::StrAppend(&text, option.takes_value ? " -r" : "", " -d '", Quoted(option.doc), "'\n");
    }
    if (TakesJob(command)) {
      absl::StrAppend(&text, "complete -c sluicectl -n '", when, "' -f -a '(", kJobs, ")'\n");
    }
  });
  return text;
}

std::string Usage(const CLI::App& command, const std::vector<std::string>& path) {
  std::string usage = absl::StrCat("sluicectl ", absl::StrJoin(path, " "));
  for (const OptionFacts& option : OptionsOf(command)) {
    if (option.positional) absl::StrAppend(&usage, " ", option.placeholder);
  }
  return usage;
}

std::string NamesOf(const OptionFacts& option) {
  if (option.positional) return option.placeholder;
  // A flag that takes a value after "=" alone.
  if (option.names == std::vector<std::string>{"--dry-run"}) return "--dry-run[=client|server]";
  return absl::StrCat(absl::StrJoin(option.names, ", "), option.takes_value ? " VALUE" : "");
}

// Text of a man page, as it stands: a line must not begin with a request, and roff makes other signs of some.
std::string Roff(const std::string& text) {
  std::string escaped = absl::StrReplaceAll(
      text, {{"\\", "\\e"}, {"-", "\\-"}, {"'", "\\(aq"}, {"`", "\\(ga"}, {"^", "\\(ha"}, {"~", "\\(ti"}});
  if (!escaped.empty() && escaped.front() == '.') escaped = "\\&" + escaped;
  return escaped;
}

}  // namespace

std::string CompletionScript(const CLI::App& app, const std::string& shell) {
  if (shell == "zsh") return ZshScript(app);
  return shell == "fish" ? FishScript(app) : BashScript(app);
}

std::string ManPage(const CLI::App& app) {
  std::string page = absl::StrCat(".TH SLUICECTL 1 \"\" \"Sluice ", ReleaseVersion(),
                                  "\" \"Sluice\"\n.SH NAME\nsluicectl \\- submits Sluice's jobs and follows them\n"
                                  ".SH SYNOPSIS\n.B sluicectl\n[OPTIONS] COMMAND ...\n");
  ForEachCommand(app, {}, [&page](const CLI::App& command, const std::vector<std::string>& path) {
    if (path.empty()) {
      absl::StrAppend(&page, ".SH OPTIONS\n");
    } else {
      if (path.size() == 1 && path[0] == "submit") absl::StrAppend(&page, ".SH COMMANDS\n");
      absl::StrAppend(&page, ".SS ", Roff(Usage(command, path)), "\n", Roff(command.get_description()), "\n");
    }
    for (const OptionFacts& option : OptionsOf(command)) {
      if (option.doc.empty()) continue;
      absl::StrAppend(&page, ".TP\n.B ", Roff(NamesOf(option)), "\n", Roff(option.doc), "\n");
    }
  });
  std::vector<std::string> lines = absl::StrSplit(app.get_footer(), '\n');
  for (std::string& line : lines) line = Roff(line);
  return absl::StrCat(page, ".SH EXIT STATUS\n", absl::StrJoin(lines, "\n.br\n"), "\n");
}

std::string ReferencePage(const CLI::App& app) {
  std::string page =
      "# sluicectl\n\nWritten by `sluicectl man --markdown` from the command line's own description; a test fails when "
      "this page is out of date. How to use it: [howto.md](../howto.md), [tutorial.md](../tutorial.md).\n\n"
      "Before or after any command:\n";
  ForEachCommand(app, {}, [&page](const CLI::App& command, const std::vector<std::string>& path) {
    if (!path.empty()) {
      absl::StrAppend(&page, "\n## ", absl::StrJoin(path, " "), "\n\n`", Usage(command, path), "`\n\n",
                      command.get_description(), "\n");
    }
    std::string rows;
    for (const OptionFacts& option : OptionsOf(command)) {
      if (option.doc.empty() || option.names == std::vector<std::string>{"--help", "-h"}) continue;
      absl::StrAppend(&rows, "| `", NamesOf(option), "` | ", absl::StrReplaceAll(option.doc, {{"|", "\\|"}}), " |\n");
    }
    if (!rows.empty()) absl::StrAppend(&page, "\n| option | what it does |\n| --- | --- |\n", rows);
  });
  absl::StrAppend(&page, "\n## Exit codes\n\n", app.get_footer(), "\n");
  return page;
}

}  // namespace sluice::client
