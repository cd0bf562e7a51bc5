// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "coral/base/os.hpp"

namespace coral::test {

// The real files, with a boot id of its own: a machine that was switched on again.
class ForwardingOs : public Os {
  public:
    explicit ForwardingOs(std::string boot) : boot_(std::move(boot)) {}

    Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
        return real().open(path, mode);
    }
    Status rename(const std::string& from, const std::string& to) override { return real().rename(from, to); }
    Status remove(const std::string& path) override { return real().remove(path); }
    Status remove_dir(const std::string& path) override { return real().remove_dir(path); }
    Status make_dir(const std::string& path, std::uint32_t mode) override { return real().make_dir(path, mode); }
    Status sync_dir(const std::string&) override { return {}; }
    Result<FileStat> stat(const std::string& path) override { return real().stat(path); }
    Result<FileStat> lstat(const std::string& path) override { return real().lstat(path); }
    Result<std::vector<std::string>> list_dir(const std::string& path) override { return real().list_dir(path); }
    Result<std::string> read_link(const std::string& path) override { return real().read_link(path); }
    Result<SpaceStat> space(const std::string& path) override { return real().space(path); }
    Result<bool> has_writers(const std::string& path) override { return real().has_writers(path); }
    std::string boot_id() override { return boot_; }

  protected:
    static Os& real() { return real_os(); }

  private:
    std::string boot_;
};

}  // namespace coral::test
