// SPDX-License-Identifier: Apache-2.0
// A directory under TMPDIR that goes away with the test.
#pragma once

#include <unistd.h>

#include <boost/filesystem.hpp>

#include <string>

#include "coral/base/ids.hpp"

namespace coral::test {

class TempDir {
  public:
    TempDir() : path_(boost::filesystem::temp_directory_path() / ("coral-test-" + Uuid::random().text())) {
        boost::filesystem::create_directories(path_);
    }
    ~TempDir() {
        boost::system::error_code ignored;
        boost::filesystem::remove_all(path_, ignored);
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    std::string path() const { return path_.string(); }
    std::string file(const std::string& name) const { return (path_ / name).string(); }

  private:
    boost::filesystem::path path_;
};

}  // namespace coral::test
