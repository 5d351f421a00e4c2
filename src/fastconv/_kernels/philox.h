/* Philox4x64-10 (Salmon et al., 2011): the words of numpy.random.Philox, from any position, on any thread.
 *
 * Block b of a generator is a bijection of (counter + b + 1) under the key; it gives four words of 64 bits.
 */
#ifndef FC_PHILOX_H
#define FC_PHILOX_H

#include <stddef.h>
#include <stdint.h>

/* low 64 bits of a * b; *high the others */
static inline uint64_t fc_multiply(uint64_t a, uint64_t b, uint64_t *high)
{
#ifdef __SIZEOF_INT128__
    const unsigned __int128 product = (unsigned __int128)a * b;
    *high = (uint64_t)(product >> 64);
#else
    const uint64_t a0 = a & 0xffffffff, a1 = a >> 32, b0 = b & 0xffffffff, b1 = b >> 32;
    const uint64_t middle = a1 * b0 + (a0 * b0 >> 32);
    const uint64_t cross = a0 * b1 + (middle & 0xffffffff);
    *high = a1 * b1 + (middle >> 32) + (cross >> 32);
#endif
    return a * b;
}

/* keep[8 * b + e] = (half word e of block first + b >= threshold), low halves first */
static inline void fc_philox_keep(const uint64_t *key /* (2) */, const uint64_t *counter /* (4) */, uint64_t first,
                                  ptrdiff_t blocks, uint64_t threshold, uint8_t *keep /* OUT (blocks, 8) */)
{
    for (ptrdiff_t b = 0; b < blocks; b++) {
        uint64_t w[4] = {counter[0] + first + (uint64_t)b + 1, counter[1], counter[2], counter[3]};
        uint64_t k0 = key[0], k1 = key[1];
        for (int round = 0; round < 10; round++) {
            uint64_t high0, high1;
            const uint64_t low0 = fc_multiply(0xD2E7470EE14C6C93u, w[0], &high0);
            const uint64_t low1 = fc_multiply(0xCA5A826395121157u, w[2], &high1);
            w[0] = high1 ^ w[1] ^ k0;
            w[1] = low1;
            w[2] = high0 ^ w[3] ^ k1;
            w[3] = low0;
            k0 += 0x9E3779B97F4A7C15u;
            k1 += 0xBB67AE8584CAA73Bu;
        }
        for (int e = 0; e < 4; e++) {
            keep[8 * b + 2 * e] = (w[e] & 0xffffffff) >= threshold;
            keep[8 * b + 2 * e + 1] = (w[e] >> 32) >= threshold;
        }
    }
}

#endif
