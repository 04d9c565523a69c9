// For sanitizers: all kernels, in which there is to be nothing to find; or one of two small ones
// with a mistake each, which has to be found, or the finding of nothing would mean nothing.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>
#include <memory>

#include "cases.h"

namespace {

constexpr int kThreads = 64;

// Each thread passes a number on to its neighbor.
__global__ void pass_on(int* out, bool waits) {
  __shared__ int numbers[kThreads];
  numbers[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (waits) __syncthreads();
  out[threadIdx.x] = numbers[(threadIdx.x + 1) % kThreads];
}

struct Passed {
  int* out;
  bool waits;
};
__global__ void pass(Passed p) { pass_on(p.out, p.waits); }

struct Written {
  int* out;
  int past;
  bool shared;
};
__global__ void write(Written p) {
  if (p.shared) static_cast<int*>(cuda_shared_memory())[threadIdx.x + p.past] = 1;
  p.out[threadIdx.x] = 0;
  if (!p.shared) p.out[threadIdx.x + p.past] = 1;
}

template <typename Params>
void run(void (*kernel)(Params), Params params) {
  void* arguments[] = {&params};
  cudaLaunchKernel(kernel, {1, 1, 1}, {kThreads, 1, 1}, arguments, kThreads * sizeof(int), nullptr);
}

}  // namespace

int main(int, char** arguments) {
  const auto out = std::make_unique<int[]>(kThreads);
  const auto is = [&](const char* name) { return std::strcmp(arguments[1], name) == 0; };
  if (is("barrier")) run(pass, Passed{out.get(), true});
  if (is("no barrier")) run(pass, Passed{out.get(), false});
  if (is("inside")) run(write, Written{out.get(), 0, true});
  if (is("overrun")) run(write, Written{out.get(), 1, false});
  if (is("shared overrun")) run(write, Written{out.get(), 1, true});
  if (is("kernels")) {
    pymerge::cuda::test::run_span();
    pymerge::cuda::test::run_pointwise();
    pymerge::cuda::test::run_select();
    pymerge::cuda::test::run_tasks();
  }
  std::puts("done");
}
