/* The vector layer: one vector type `vec` of LANES `real`s, and the few operations the kernels use.
 *
 * Compiled once per (ISA, dtype): NN_ISA_AVX512, NN_ISA_AVX2 or neither select the section, NN_F64 the
 * type. Kernels see only these names; + - * / on `vec` are GCC's vector operators.
 *
 *   vload vstore            unaligned, LANES elements
 *   vload_n vstore_n        the first n elements, 0 <= n <= LANES; the other lanes read as 0, are not written
 *   vstream vfence          vstore past the cache, to a multiple of VBYTES; between such and what other threads read
 *   vset1 vzero             broadcast
 *   vfma(a,b,c)             a*b + c, fused where the ISA has FMA (NN_HAS_FMA)
 *   vmax(a,b) vmin(a,b)     b if either is NaN: write the operand that may be NaN second
 *   vlt vle vgt vge veq vnan  -> vmask;  vsel(m,a,b) = m ? a : b;  vmand vmor vmnot;  vany(m): whether any lane is set
 *   vrint                   to nearest, ties to even, for |x| < 2^22 (f32) or 2^51 (f64)
 *   vscalb(x,n)             x * 2^n, n integral-valued; saturates to inf and to 0 as the product would
 *   vexp2i(n)               2^n, n integral-valued, -REAL_BIAS <= n <= REAL_BIAS; 0 at the lower end
 *   vpick(table, i)         table[i % 16], where a register holds 16 numbers (AVX-512, f32); not defined elsewhere
 *   vexponent vmantissa     there too, for x = 2^k m with 1 <= m < 2: k (of 0: -inf), and m (of x < 0: NaN; of 0, inf: 1)
 *   vabs vneg vcopysign vsqrt
 *   vmul32(a,b)             products of the low 32 bits of each 64, in full
 */
#ifndef NN_VEC_H
#define NN_VEC_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define NN_INLINE static inline __attribute__((always_inline, unused))

#ifdef NN_F64
typedef double real;
typedef int64_t ireal;
#define R(x) x
#define REAL_MANT 52
#define REAL_BIAS 1023
#define REAL_MAX __DBL_MAX__
#else
typedef float real;
typedef int32_t ireal;
#define R(x) x##f
#define REAL_MANT 23
#define REAL_BIAS 127
#define REAL_MAX __FLT_MAX__
#endif

#if defined(NN_ISA_AVX512)
#define VBYTES 64
#elif defined(NN_ISA_AVX2)
#define VBYTES 32
#else
#define VBYTES 16
#endif
#define LANES ((int64_t)(VBYTES / sizeof(real)))

NN_INLINE int64_t round_up(int64_t n, int64_t m) { return (n + m - 1) / m * m; }
NN_INLINE int64_t min_i(int64_t a, int64_t b) { return a < b ? a : b; }
NN_INLINE int64_t max_i(int64_t a, int64_t b) { return a > b ? a : b; }

typedef real vec __attribute__((vector_size(VBYTES)));
typedef real vec_u __attribute__((vector_size(VBYTES), aligned(1), may_alias));
typedef ireal vint __attribute__((vector_size(VBYTES)));
typedef uint64_t vu64 __attribute__((vector_size(VBYTES)));

NN_INLINE vec vload(const real *p) { return *(const vec_u *)p; }
NN_INLINE void vstore(real *p, vec v) { *(vec_u *)p = v; }
NN_INLINE vec vset1(real x) { return x - (vec){0}; } /* x - 0 keeps -0, NaN and inf; x + 0 would not */
NN_INLINE vec vzero(void) { return (vec){0}; }
NN_INLINE vec vabs(vec x) { return (vec)((vint)x & ~(vint)vset1(R(-0.0))); }
NN_INLINE vec vneg(vec x) { return (vec)((vint)x ^ (vint)vset1(R(-0.0))); }
#ifndef NN_ISA_AVX512
NN_INLINE vec vcopysign(vec mag, vec sign)
{
    vint s = (vint)vset1(R(-0.0));
    return (vec)(((vint)mag & ~s) | ((vint)sign & s));
}
#endif

#if defined(NN_ISA_AVX512) || defined(NN_ISA_AVX2)
#include <immintrin.h>
#ifdef NN_F64
#define NN_X(op) op##_pd
#else
#define NN_X(op) op##_ps
#endif
#define NN_HAS_FMA
#endif

#if defined(NN_ISA_AVX512)

#ifdef NN_F64
typedef __mmask8 vmask;
#define NN_CMP(a, b, c) _mm512_cmp_pd_mask(a, b, c)
#else
typedef __mmask16 vmask;
#define NN_CMP(a, b, c) _mm512_cmp_ps_mask(a, b, c)
#endif
NN_INLINE vmask vtail(int64_t n) { return (vmask)((1u << n) - 1u); }
NN_INLINE vec vload_m(const real *p, vmask m) { return NN_X(_mm512_maskz_loadu)(m, p); }
NN_INLINE void vstore_m(real *p, vec v, vmask m) { NN_X(_mm512_mask_storeu)(p, m, v); }
NN_INLINE vec vload_n(const real *p, int64_t n) { return vload_m(p, vtail(n)); }
NN_INLINE void vstore_n(real *p, vec v, int64_t n) { vstore_m(p, v, vtail(n)); }
NN_INLINE void vstream(real *p, vec v) { NN_X(_mm512_stream)(p, v); }
NN_INLINE vec vfma(vec a, vec b, vec c) { return NN_X(_mm512_fmadd)(a, b, c); }
NN_INLINE vec vmax(vec a, vec b) { return NN_X(_mm512_max)(a, b); }
NN_INLINE vec vmin(vec a, vec b) { return NN_X(_mm512_min)(a, b); }
NN_INLINE vmask vlt(vec a, vec b) { return NN_CMP(a, b, _CMP_LT_OQ); }
NN_INLINE vmask vle(vec a, vec b) { return NN_CMP(a, b, _CMP_LE_OQ); }
NN_INLINE vmask veq(vec a, vec b) { return NN_CMP(a, b, _CMP_EQ_OQ); }
NN_INLINE vmask vnan(vec a) { return NN_CMP(a, a, _CMP_UNORD_Q); }
NN_INLINE vmask vmand(vmask a, vmask b) { return a & b; }
NN_INLINE vmask vmor(vmask a, vmask b) { return a | b; }
NN_INLINE vmask vmnot(vmask a) { return (vmask)~a; }
NN_INLINE vec vsel(vmask m, vec a, vec b) { return NN_X(_mm512_mask_blend)(m, b, a); }
NN_INLINE vec vrint(vec x) { return NN_X(_mm512_roundscale)(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
NN_INLINE vec vcopysign(vec mag, vec sign) /* ternary logic: bit of the first ? of the second : of the third */
{
    return (vec)_mm512_ternarylogic_epi64((__m512i)vset1(R(-0.0)), (__m512i)sign, (__m512i)mag, 0xca);
}
NN_INLINE vec vscalb(vec x, vec n) { return NN_X(_mm512_scalef)(x, n); }
NN_INLINE vec vexp2i(vec n) { return vscalb(vset1(R(1.0)), n); }
#ifndef NN_F64
#define vpick(table, i) _mm512_permutexvar_ps((__m512i)(i), vload(table))
#define vexponent(x) _mm512_getexp_ps(x)
#define vmantissa(x) _mm512_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_nan)
#endif
NN_INLINE vec vsqrt(vec x) { return NN_X(_mm512_sqrt)(x); }
NN_INLINE vu64 vmul32(vu64 a, vu64 b) { return (vu64)_mm512_mul_epu32((__m512i)a, (__m512i)b); }

#elif defined(NN_ISA_AVX2)

typedef vint vmask;
#ifdef NN_F64
#define NN_IVEC long long
#else
#define NN_IVEC int
#endif
NN_INLINE vmask vtail(int64_t n)
{
#ifdef NN_F64
    vint iota = {0, 1, 2, 3};
#else
    vint iota = {0, 1, 2, 3, 4, 5, 6, 7};
#endif
    return (vint)(iota < (ireal)n);
}
NN_INLINE vec vload_m(const real *p, vmask m) { return NN_X(_mm256_maskload)((const real *)p, (__m256i)m); }
NN_INLINE void vstore_m(real *p, vec v, vmask m) { NN_X(_mm256_maskstore)(p, (__m256i)m, v); }
NN_INLINE vec vload_n(const real *p, int64_t n) { return vload_m(p, vtail(n)); }
NN_INLINE void vstore_n(real *p, vec v, int64_t n) { vstore_m(p, v, vtail(n)); }
NN_INLINE void vstream(real *p, vec v) { NN_X(_mm256_stream)(p, v); }
NN_INLINE vec vfma(vec a, vec b, vec c) { return NN_X(_mm256_fmadd)(a, b, c); }
NN_INLINE vec vmax(vec a, vec b) { return NN_X(_mm256_max)(a, b); }
NN_INLINE vec vmin(vec a, vec b) { return NN_X(_mm256_min)(a, b); }
NN_INLINE vmask vlt(vec a, vec b) { return (vint)NN_X(_mm256_cmp)(a, b, _CMP_LT_OQ); }
NN_INLINE vmask vle(vec a, vec b) { return (vint)NN_X(_mm256_cmp)(a, b, _CMP_LE_OQ); }
NN_INLINE vmask veq(vec a, vec b) { return (vint)NN_X(_mm256_cmp)(a, b, _CMP_EQ_OQ); }
NN_INLINE vmask vnan(vec a) { return (vint)NN_X(_mm256_cmp)(a, a, _CMP_UNORD_Q); }
NN_INLINE vmask vmand(vmask a, vmask b) { return a & b; }
NN_INLINE vmask vmor(vmask a, vmask b) { return a | b; }
NN_INLINE vmask vmnot(vmask a) { return ~a; }
NN_INLINE vec vsel(vmask m, vec a, vec b) { return NN_X(_mm256_blendv)(b, a, (vec)m); }
NN_INLINE vec vrint(vec x) { return NN_X(_mm256_round)(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
NN_INLINE vec vsqrt(vec x) { return NN_X(_mm256_sqrt)(x); }
NN_INLINE vu64 vmul32(vu64 a, vu64 b) { return (vu64)_mm256_mul_epu32((__m256i)a, (__m256i)b); }

#else

typedef vint vmask;
NN_INLINE vmask vtail(int64_t n)
{
    vint m;
    for (int64_t i = 0; i < LANES; i++) m[i] = i < n ? -1 : 0;
    return m;
}
NN_INLINE vec vload_n(const real *p, int64_t n)
{
    vec v = {0};
    memcpy(&v, p, (size_t)n * sizeof(real));
    return v;
}
NN_INLINE void vstore_n(real *p, vec v, int64_t n) { memcpy(p, &v, (size_t)n * sizeof(real)); }
NN_INLINE vmask vlt(vec a, vec b) { return (vint)(a < b); }
NN_INLINE vmask vle(vec a, vec b) { return (vint)(a <= b); }
NN_INLINE vmask veq(vec a, vec b) { return (vint)(a == b); }
NN_INLINE vmask vnan(vec a) { return (vint)(a != a); }
NN_INLINE vmask vmand(vmask a, vmask b) { return a & b; }
NN_INLINE vmask vmor(vmask a, vmask b) { return a | b; }
NN_INLINE vmask vmnot(vmask a) { return ~a; }
NN_INLINE vec vsel(vmask m, vec a, vec b) { return (vec)((m & (vint)a) | (~m & (vint)b)); }
NN_INLINE vec vfma(vec a, vec b, vec c) { return a * b + c; }
NN_INLINE vec vmax(vec a, vec b) { return vsel((vint)(a > b), a, b); }
NN_INLINE vec vmin(vec a, vec b) { return vsel((vint)(a < b), a, b); }
NN_INLINE vec vrint(vec x)
{
    vec magic = vset1((real)((int64_t)3 << (REAL_MANT - 1)));
    return vcopysign((vabs(x) + magic) - magic, x);
}
NN_INLINE vec vsqrt(vec x)
{
    for (int64_t i = 0; i < LANES; i++) x[i] = (real)__builtin_sqrt(x[i]);
    return x;
}
#ifdef __SSE2__
#include <emmintrin.h>
#ifdef NN_F64
NN_INLINE void vstream(real *p, vec v) { _mm_stream_pd(p, v); }
#else
NN_INLINE void vstream(real *p, vec v) { _mm_stream_ps(p, v); }
#endif
NN_INLINE vu64 vmul32(vu64 a, vu64 b) { return (vu64)_mm_mul_epu32((__m128i)a, (__m128i)b); }
#else
NN_INLINE void vstream(real *p, vec v) { vstore(p, v); }
NN_INLINE vu64 vmul32(vu64 a, vu64 b) { return (a & 0xffffffff) * (b & 0xffffffff); }
#endif

#endif

NN_INLINE void vfence(void)
{
#ifdef __SSE2__
    _mm_sfence();
#endif
}

NN_INLINE int vany(vmask m)
{
#ifdef NN_ISA_AVX512
    return m != 0;
#else
    ireal any = 0;
    for (int64_t i = 0; i < LANES; i++) any |= m[i];
    return any != 0;
#endif
}

#ifndef NN_ISA_AVX512
/* 2^n as exponent bits. Split in two factors, so that a result near the ends of the range is reached. */
NN_INLINE vec vexp2i(vec n)
{
    vec biased = n + vset1((real)REAL_BIAS + (real)((int64_t)3 << (REAL_MANT - 1)));
    return (vec)((vint)biased << REAL_MANT);
}
NN_INLINE vec vscalb(vec x, vec n)
{
    vec lim = vset1((real)(2 * REAL_BIAS));
    n = vmax(vmin(n, lim), vneg(lim));
    vec half = vrint(n * vset1(R(0.5)));
    return x * vexp2i(half) * vexp2i(n - half);
}
#endif

NN_INLINE vmask vgt(vec a, vec b) { return vlt(b, a); }
NN_INLINE vmask vge(vec a, vec b) { return vle(b, a); }

/* Lanes folded as a fixed tree: the same order for every caller. */
NN_INLINE real vhsum(vec v)
{
#ifdef NN_ISA_AVX512
    return NN_X(_mm512_reduce_add)(v);
#endif
    vint iota;
    for (int64_t i = 0; i < LANES; i++) iota[i] = (ireal)i;
    _Pragma("GCC unroll 4") for (ireal w = (ireal)(LANES / 2); w > 0; w /= 2) v = v + __builtin_shuffle(v, iota + w);
    return v[0];
}

/* Lane l: vhsum(r[l]), by the same tree, for LANES vectors, which are lost. */
NN_INLINE vec vhsums(vec *r)
{
    vint iota;
    for (int64_t i = 0; i < LANES; i++) iota[i] = (ireal)i;
    _Pragma("GCC unroll 4") for (ireal w = (ireal)(LANES / 2); w > 0; w /= 2)
    {
        vint from = ((iota & w) != 0) & (ireal)LANES;
        _Pragma("GCC unroll 8") for (ireal i = 0; i < w; i++) r[i] =
            __builtin_shuffle(r[i], r[i + w], iota + from) + __builtin_shuffle(r[i], r[i + w], (iota ^ w) + from);
    }
    return r[0];
}

/* In-register transpose of LANES vectors (Eklundh: swap blocks of 1, 2, 4, ... lanes). */
NN_INLINE void vtranspose(vec *r)
{
    vint iota;
    for (int64_t i = 0; i < LANES; i++) iota[i] = (ireal)i;
#define NN_STAGE(S)                                                                                                    \
    if (S < LANES) {                                                                                                   \
        vint odd = (vint)((iota & (ireal)S) != 0);                                                                     \
        vint lo = (odd & (iota - (ireal)S + (ireal)LANES)) | (~odd & iota);                                            \
        vint hi = (odd & (iota + (ireal)LANES)) | (~odd & (iota + (ireal)S));                                          \
        _Pragma("GCC unroll 16") for (int64_t i = 0; i < LANES; i++) if (!(i & S))                                     \
        {                                                                                                              \
            vec a = r[i], b = r[i + (S < LANES ? S : 0)];                                                              \
            r[i] = __builtin_shuffle(a, b, lo);                                                                        \
            r[i + (S < LANES ? S : 0)] = __builtin_shuffle(a, b, hi);                                                  \
        }                                                                                                              \
    }
    NN_STAGE(1)
    NN_STAGE(2)
    NN_STAGE(4)
    NN_STAGE(8)
#undef NN_STAGE
}

#endif
