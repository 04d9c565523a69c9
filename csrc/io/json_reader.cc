#include "io/json_reader.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/error.h"

namespace pymerge {
namespace {

void append_utf8(std::string& out, std::uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | (code >> 12));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (code >> 18));
    out += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// -?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?
bool is_number(std::string_view text) {
  const auto accept = [&](std::string_view any) {
    if (text.empty() || any.find(text[0]) == std::string_view::npos) return false;
    text.remove_prefix(1);
    return true;
  };
  const auto digits = [&] {
    const std::size_t before = text.size();
    while (!text.empty() && is_digit(text[0])) text.remove_prefix(1);
    return before != text.size();
  };
  accept("-");
  if (!accept("0") && !digits()) return false;
  if (accept(".") && !digits()) return false;
  if (accept("eE")) {
    accept("+-");
    if (!digits()) return false;
  }
  return text.empty();
}

}  // namespace

JsonReader::JsonReader(std::string_view text, std::string path, std::int64_t origin)
    : text_(text), path_(std::move(path)), origin_(origin) {}

void JsonReader::fail(const std::string& message) const {
  throw Error(ErrorCode::kFormat, "damaged header: " + message, path_, "",
              origin_ + static_cast<std::int64_t>(at_));
}

void JsonReader::skip_space() {
  while (at_ < text_.size() &&
         (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) {
    ++at_;
  }
}

char JsonReader::peek() {
  skip_space();
  if (at_ >= text_.size()) fail("it ends too early");
  return text_[at_];
}

void JsonReader::expect(char symbol) {
  if (peek() != symbol) fail(std::string("expected '") + symbol + "'");
  ++at_;
}

bool JsonReader::accept(char symbol) {
  if (peek() != symbol) return false;
  ++at_;
  return true;
}

void JsonReader::expect_end() {
  skip_space();
  if (at_ != text_.size()) fail("text after the closing brace");
}

std::uint32_t JsonReader::read_hex4() {
  if (text_.size() - at_ < 4) fail("it ends inside an escape");
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    const char c = text_[at_];
    const char lower = static_cast<char>(c | 0x20);
    if (is_digit(c)) {
      value = value * 16 + static_cast<std::uint32_t>(c - '0');
    } else if (lower >= 'a' && lower <= 'f') {
      value = value * 16 + static_cast<std::uint32_t>(lower - 'a' + 10);
    } else {
      fail("bad \\u escape");
    }
  }
  return value;
}

void JsonReader::append_escape(std::string& out) {
  if (at_ >= text_.size()) fail("it ends inside an escape");
  constexpr std::string_view kSymbols = "\"\\/bfnrt";
  constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
  const char symbol = text_[at_++];
  if (const auto which = kSymbols.find(symbol); which != std::string_view::npos) {
    out += kMeanings[which];
    return;
  }
  if (symbol != 'u') fail("unknown escape");
  std::uint32_t code = read_hex4();
  if (code >= 0xD800 && code < 0xDC00) {  // a surrogate pair
    if (text_.substr(at_, 2) != "\\u") fail("lone surrogate");
    at_ += 2;
    const std::uint32_t low = read_hex4();
    if (low < 0xDC00 || low >= 0xE000) fail("lone surrogate");
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
  } else if (code >= 0xDC00 && code < 0xE000) {
    fail("lone surrogate");
  }
  append_utf8(out, code);
}

std::string JsonReader::read_string() {
  expect('"');
  std::string out;
  for (;;) {
    if (at_ >= text_.size()) fail("it ends inside a string");
    const char c = text_[at_++];
    if (c == '"') return out;
    if (static_cast<unsigned char>(c) < 0x20) fail("control character in a string");
    if (c == '\\') {
      append_escape(out);
    } else {
      out += c;
    }
  }
}

std::int64_t JsonReader::read_integer() {
  if (!is_digit(peek())) fail("expected a whole number that is not negative");
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  const std::size_t start = at_;
  std::int64_t value = 0;
  while (at_ < text_.size() && is_digit(text_[at_])) {
    const int digit = text_[at_++] - '0';
    if (value > (kMax - digit) / 10) fail("number too large");
    value = value * 10 + digit;
  }
  if (at_ - start > 1 && text_[start] == '0') fail("number with a leading zero");
  if (at_ < text_.size() && (text_[at_] == '.' || (text_[at_] | 0x20) == 'e')) {
    fail("expected a whole number");
  }
  return value;
}

void JsonReader::skip_value(int depth) {
  if (depth > 64) fail("nested too deeply");
  const char first = peek();
  if (first == '"') {
    read_string();
  } else if (first == '{' || first == '[') {
    ++at_;
    const char close = first == '{' ? '}' : ']';
    if (accept(close)) return;
    do {
      if (first == '{') {
        read_string();
        expect(':');
      }
      skip_value(depth + 1);
    } while (accept(','));
    expect(close);
  } else {
    skip_atom();
  }
}

void JsonReader::skip_atom() {
  constexpr std::string_view kSymbols = "+-.0123456789aeEflnrstu";
  const std::size_t end = std::min(text_.find_first_not_of(kSymbols, at_), text_.size());
  const std::string_view atom = text_.substr(at_, end - at_);
  if (atom != "true" && atom != "false" && atom != "null" && !is_number(atom)) {
    fail("expected a value");
  }
  at_ = end;
}

bool valid_utf8(std::string_view text) {
  const auto* s = reinterpret_cast<const unsigned char*>(text.data());
  const std::size_t n = text.size();
  for (std::size_t i = 0; i < n;) {
    const unsigned char lead = s[i];
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const int extra = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
    if (lead < 0xC2 || lead > 0xF4 || n - i <= static_cast<std::size_t>(extra)) return false;
    for (int k = 1; k <= extra; ++k) {
      if ((s[i + static_cast<std::size_t>(k)] & 0xC0) != 0x80) return false;
    }
    const unsigned char next = s[i + 1];
    const bool overlong = (lead == 0xE0 && next < 0xA0) || (lead == 0xF0 && next < 0x90);
    const bool outside = (lead == 0xED && next > 0x9F) || (lead == 0xF4 && next > 0x8F);
    if (overlong || outside) return false;
    i += static_cast<std::size_t>(extra) + 1;
  }
  return true;
}

}  // namespace pymerge
