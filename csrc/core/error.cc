#include "core/error.h"

#include <cerrno>
#include <cstring>

namespace pymerge {

void throw_errno(const std::string& what, const std::string& path, int number, ErrorCode missing) {
  std::string message = what + ": " + std::strerror(number);
  if (number == ENOSPC || number == EDQUOT) {
    message += "; free some space or choose another output folder, then run the command again";
  }
  const bool absent = number == ENOENT || number == ENOTDIR || number == EISDIR;
  throw Error(absent ? missing : ErrorCode::kResource, message, path);
}

}  // namespace pymerge
