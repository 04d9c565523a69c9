// A strict reader for the JSON of safetensors headers: walks bytes once, allocates only the strings
// it returns, and says at which byte something is wrong.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pymerge {

class JsonReader {
 public:
  // `text` must be valid UTF-8 (see valid_utf8); `path` is for messages; `origin` is added to
  // offsets.
  JsonReader(std::string_view text, std::string path, std::int64_t origin);

  // Consumes `symbol` (after white space); error if something else stands there.
  void expect(char symbol);
  // Consumes `symbol` if it is next.
  bool accept(char symbol);
  std::string read_string();
  // A whole number without sign, fraction or exponent, at most 2^63 - 1.
  std::int64_t read_integer();
  // Skips any value; nesting deeper than 64 is an error.
  void skip_value(int depth = 0);
  // Error unless only white space is left.
  void expect_end();

  [[noreturn]] void fail(const std::string& message) const;

 private:
  void skip_space();
  char peek();
  void skip_atom();
  void append_escape(std::string& out);
  std::uint32_t read_hex4();

  std::string_view text_;
  std::string path_;
  std::int64_t origin_;
  std::size_t at_ = 0;
};

bool valid_utf8(std::string_view text);

}  // namespace pymerge
