// How this process treats memory that tensors free.
#ifndef SLUICE_COMMON_TENSOR_KEEP_MEMORY_H_
#define SLUICE_COMMON_TENSOR_KEEP_MEMORY_H_

namespace sluice {

// Lets the allocator keep up to 1 GiB of freed memory, and serve blocks of up to 256 MiB from it. A training step makes
// and frees the same activations again and again; by default the C library gives large blocks back to the system each
// time, and the kernel then clears every page of them anew: 4 to 11 % of an update's CPU time. The most memory held
// does not change, the least does. Call once, early; does nothing where the C library is not glibc.
void KeepFreedMemory();

}  // namespace sluice

#endif  // SLUICE_COMMON_TENSOR_KEEP_MEMORY_H_
