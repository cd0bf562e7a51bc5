// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <boost/filesystem.hpp>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace coral::test {

// A fresh directory, canonical (no symlinks in its path, as RecordingOs wants it), removed with everything in it.
class ScratchDir {
  public:
    ScratchDir() {
        const char* base = std::getenv("TMPDIR");
        make(base && *base ? base : "/tmp");
    }
    ~ScratchDir() {
        boost::system::error_code ignored;
        boost::filesystem::remove_all(path_, ignored);
    }
    ScratchDir(const ScratchDir&) = delete;
    ScratchDir& operator=(const ScratchDir&) = delete;

    const std::string& path() const { return path_; }
    std::string operator/(const std::string& name) const { return path_ + "/" + name; }

  protected:
    explicit ScratchDir(const std::string& base) { make(base); }

  private:
    void make(const std::string& base) {
        std::string pattern = base + "/coral-test-XXXXXX";
        if (!::mkdtemp(pattern.data())) throw std::runtime_error("mkdtemp " + pattern);
        path_ = boost::filesystem::canonical(pattern).native();
    }
    std::string path_;
};

// In memory where there is room for it: a crash test writes its few megabytes thousands of times.
class MemoryDir : public ScratchDir {
  public:
    MemoryDir() : ScratchDir(base()) {}

  private:
    static std::string base() {
        boost::system::error_code error;
        auto space = boost::filesystem::space("/dev/shm", error);
        if (!error && space.available > (256u << 20) && ::access("/dev/shm", W_OK) == 0) return "/dev/shm";
        const char* other = std::getenv("TMPDIR");
        return other && *other ? other : "/tmp";
    }
};

}  // namespace coral::test
