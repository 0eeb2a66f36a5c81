// The primitives of emulator/sm90_cases.h on a GPU. Each request on standard input is a line (name, bytes in, bytes
// out, numbers) and the bytes in; each answer a line, "ok" or what went wrong, and after "ok" the bytes out.
#include <iostream>
#include <sstream>

#include "sm90_cases.h"

namespace {

using mobilevit_fast::cuda::Arrays;

std::string answer(const std::string& request, std::vector<char>& out) {
  std::istringstream words(request);
  std::string name;
  Arrays arrays{};
  words >> name >> arrays.from_bytes >> arrays.to_bytes;
  std::vector<int> numbers;
  for (int number; words >> number;) numbers.push_back(number);
  std::vector<char> in(arrays.from_bytes);
  std::cin.read(in.data(), arrays.from_bytes);
  out.resize(arrays.to_bytes);

  void* from = nullptr;
  const auto check = [](cudaError_t status) {
    if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
  };
  check(cudaMalloc(&from, in.size() + 16));
  check(cudaMalloc(&arrays.to, out.size()));
  check(cudaMemcpy(from, in.data(), in.size(), cudaMemcpyHostToDevice));
  check(cudaMemset(arrays.to, 0xff, out.size()));
  arrays.from = from;
  check(mobilevit_fast::cuda::launch_case(name, numbers, arrays));
  check(cudaDeviceSynchronize());
  check(cudaMemcpy(out.data(), arrays.to, out.size(), cudaMemcpyDeviceToHost));
  check(cudaFree(from));
  check(cudaFree(arrays.to));
  return "ok";
}

}  // namespace

int main() {
  std::vector<char> out;
  for (std::string request; std::getline(std::cin, request);) {
    std::string result;
    try {
      result = answer(request, out);
    } catch (const std::exception& error) {
      result = error.what();
    }
    std::cout << result << "\n";
    if (result == "ok") std::cout.write(out.data(), static_cast<std::streamsize>(out.size()));
    std::cout << std::flush;
  }
  return 0;
}
