// Telling AddressSanitizer and ThreadSanitizer about fibers. Without them, every function here is empty.
#pragma once
#include <cstddef>

#ifdef MSL_ASAN
extern "C" void __sanitizer_start_switch_fiber(void**, const void*, size_t);
extern "C" void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);
constexpr bool ASAN = true;
#else
inline void __sanitizer_start_switch_fiber(void**, const void*, size_t) {}
inline void __sanitizer_finish_switch_fiber(void*, const void**, size_t*) {}
constexpr bool ASAN = false;
#endif

#ifdef MSL_TSAN
extern "C" void* __tsan_create_fiber(unsigned);
extern "C" void* __tsan_get_current_fiber();
extern "C" void __tsan_switch_to_fiber(void*, unsigned);
extern "C" void __tsan_acquire(void*);
extern "C" void __tsan_release(void*);
constexpr bool TSAN = true;
#else
inline void* __tsan_create_fiber(unsigned) { return nullptr; }
inline void* __tsan_get_current_fiber() { return nullptr; }
inline void __tsan_switch_to_fiber(void*, unsigned) {}
inline void __tsan_acquire(void*) {}
inline void __tsan_release(void*) {}
constexpr bool TSAN = false;
#endif
