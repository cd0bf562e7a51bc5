// SPDX-License-Identifier: Apache-2.0
// The program `coral`: options before the command, then the command.
#include <fmt/format.h>

#include <clocale>
#include <csignal>
#include <exception>
#include <string>
#include <vector>

#include "cli/command.hpp"
#include "cli/system.hpp"
#include "cli/text.hpp"

namespace coral::cli {
namespace {

struct Global {
    std::string color = "auto";
    bool directory_given = false;
    bool help = false, version = false;
    std::vector<std::string> rest;  // the command and its words
};

Result<Global> parse_global(const std::vector<std::string>& words) {
    static const std::vector<Option> options = {{'C', "directory", "DIR", ""},
                                                {0, "color", "WHEN", ""},
                                                {'h', "help", nullptr, ""},
                                                {'v', "version", nullptr, ""}};
    Global global;
    // Up to the first word that is neither an option nor the value of one.
    std::size_t at = 0;
    while (at < words.size() && words[at].size() > 1 && words[at][0] == '-' && words[at] != "--") {
        bool takes_next = words[at] == "-C" || words[at] == "--directory" || words[at] == "--color";
        std::size_t count = takes_next && at + 1 < words.size() ? 2 : 1;
        std::vector<std::string> part(words.begin() + static_cast<std::ptrdiff_t>(at),
                                      words.begin() + static_cast<std::ptrdiff_t>(at + count));
        CORAL_TRY(Arguments given, Arguments::parse(options, part));
        if (auto dir = given.value("directory")) {
            // Each one is relative to the one before, as in git.
            if (auto changed = change_dir(*dir); !changed) {
                Error error = std::move(changed).error().with("-C");
                error.code = Errc::kIo;  // fatal, and no matter of usage
                return error;
            }
            global.directory_given = true;
        }
        if (auto color = given.value("color")) global.color = *color;
        global.help = global.help || given.has("help");
        global.version = global.version || given.has("version");
        at += count;
    }
    if (at < words.size() && words[at] == "--") ++at;
    global.rest.assign(words.begin() + static_cast<std::ptrdiff_t>(at), words.end());
    return global;
}

bool set_color(Output& out, const std::string& when) {
    if (when == "auto")
        out.set_color(ColorWhen::kAuto);
    else if (when == "always" || when.empty())
        out.set_color(ColorWhen::kAlways);
    else if (when == "never")
        out.set_color(ColorWhen::kNever);
    else
        return false;
    return true;
}

int usage_error(const std::string& message) {
    print_error(message);
    return kUsage;
}

int exit_code(const Error& error) {
    return error.code == Errc::kNotFound ? kNo : kFatal;
}

std::string wrong_count(const Command& command, std::size_t count) {
    std::string wanted = count < command.least ? fmt::format("at least {}", count_text(command.least, "operand"))
                         : command.most == 0   ? "no operands"
                                               : fmt::format("at most {}", count_text(command.most, "operand"));
    std::string_view usage = command.usage;
    return fmt::format("{} takes {}: coral {}", command.name, wanted, usage.substr(0, usage.find('\n')));
}

int run_command(Output& out, const Command& command, const std::vector<std::string>& words, bool directory_given) {
    std::vector<Option> options = command.options;
    options.push_back({'h', "help", nullptr, ""});
    options.push_back({0, "color", "[WHEN]", ""});
    auto arguments = Arguments::parse(options, words);
    if (!arguments) {
        return usage_error(
            fmt::format("{}: {} (see `coral help {}`)", command.name, arguments.error().message, command.name));
    }
    if (arguments->has("help")) {
        out.write(help_text(command));
        return kOk;
    }
    if (auto when = arguments->value("color"); when && !set_color(out, *when)) {
        return usage_error(fmt::format("--color={}: is one of auto, always, never", quote_name(*when)));
    }
    std::size_t count = arguments->operands().size();
    if (count < command.least || count > command.most) return usage_error(wrong_count(command, count));
    Context context(out, std::move(*arguments), directory_given);
    auto done = command.run(context);
    if (done) return *done;
    (void)out.finish();  // what was printed comes before the error
    if (!out.broken_pipe()) print_error(done.error().message);
    return exit_code(done.error());
}

int run(Output& out, const std::vector<std::string>& words) {
    auto global = parse_global(words);
    if (!global) {
        print_error(global.error().message);
        return global.error().code == Errc::kInvalid ? kUsage : kFatal;
    }
    if (!set_color(out, global->color)) {
        return usage_error(fmt::format("--color={}: is one of auto, always, never", quote_name(global->color)));
    }
    std::vector<std::string> rest = global->rest;
    if (global->version)
        rest = {"version"};
    else if (global->help)
        rest.insert(rest.begin(), "help");
    if (rest.empty()) {
        out.write(overview_text());
        return kOk;
    }
    if (const Command* command = find_command(rest[0])) {
        return run_command(out, *command, {rest.begin() + 1, rest.end()}, global->directory_given);
    }
    std::vector<std::string> near = similar_commands(rest[0]);
    return usage_error(fmt::format("'{}' is no command{} (see `coral help`)", quote_name(rest[0]),
                                   near.empty() ? "" : fmt::format("; did you mean {}?", fmt::join(near, ", "))));
}

int guarded(Output& out, const std::vector<std::string>& words) {
    try {
        return run(out, words);
    } catch (const std::bad_alloc&) {
        print_error("out of memory");
    } catch (const std::exception& e) {
        print_error(fmt::format("a bug in coral: {}; please report it", e.what()));
    }
    return kFatal;
}

}  // namespace
}  // namespace coral::cli

int main(int argc, char** argv) {
    using namespace coral::cli;
    // A reader that goes away (`coral log | head`) ends the program without a word, whatever the caller had set.
    std::signal(SIGPIPE, SIG_DFL);
    std::vector<std::string> words(argv + (argc > 0 ? 1 : 0), argv + argc);
    Output out;
    int code = guarded(out, words);
    auto finished = out.finish();
    if (!finished) {
        if (out.broken_pipe()) return 128 + SIGPIPE;
        if (code == kOk) print_error(finished.error().message);
        return kFatal;
    }
    return code;
}
