// SPDX-License-Identifier: Apache-2.0
// Options and operands of one command, as git reads them. Our own and not CLI11's: operands are file names with any
// bytes, and CLI11 2.1 takes "[a,b]" apart, turns "{}" into nothing and lets `--message=` swallow the next word.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coral/base/result.hpp"

namespace coral::cli {

struct Option {
    char letter = 0;              // 0: none
    const char* name = "";        // "message": --message
    const char* value = nullptr;  // what to call its value; null: a flag. "[N]": may be left out, then only attached
    const char* help = "";
};

class Arguments {
  public:
    // kInvalid says what is wrong with the words. Long names may be shortened as far as they are unambiguous; `-5` is
    // `-n 5` where there is such an option.
    static Result<Arguments> parse(const std::vector<Option>& options, const std::vector<std::string>& words);

    bool has(const std::string& name) const { return given_.contains(name); }
    std::optional<std::string> value(const std::string& name) const;  // the last one given
    std::vector<std::string> values(const std::string& name) const;
    // A number in [low, high]; `otherwise` when it was not given.
    Result<std::uint64_t> number(const std::string& name, std::uint64_t low, std::uint64_t high,
                                 std::uint64_t otherwise) const;

    const std::vector<std::string>& operands() const { return operands_; }
    // How many operands came before `--`; nothing when there was none.
    std::optional<std::size_t> before_dashes() const { return dashes_; }

  private:
    std::map<std::string, std::vector<std::string>> given_;
    std::vector<std::string> operands_;
    std::optional<std::size_t> dashes_;
};

}  // namespace coral::cli
