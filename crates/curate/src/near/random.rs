//! The Mersenne Twister of 32 bits (Matsumoto & Nishimura, 1998) with numpy's way of drawing whole numbers below a
//! bound: the parameters of the hashes come from `numpy.random.RandomState(seed)`.

const SIZE: usize = 624;
const PERIOD: usize = 397;

pub(super) struct Twister {
    state: [u32; SIZE],
    at: usize,
}

impl Twister {
    pub fn new(seed: u32) -> Self {
        let mut state = [seed; SIZE];
        for index in 1..SIZE {
            let before = state[index - 1];
            state[index] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(index as u32);
        }
        Self { state, at: SIZE }
    }

    fn next(&mut self) -> u32 {
        if self.at == SIZE {
            for index in 0..SIZE {
                let bits = (self.state[index] & 0x8000_0000) | (self.state[(index + 1) % SIZE] & 0x7fff_ffff);
                let twist = if bits & 1 == 0 { 0 } else { 0x9908_b0df };
                self.state[index] = self.state[(index + PERIOD) % SIZE] ^ (bits >> 1) ^ twist;
            }
            self.at = 0;
        }
        let mut word = self.state[self.at];
        self.at += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// A number from `low` to `high`, the latter excluded: bits are drawn until they are small enough.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let range = high - 1 - low;
        let mask = u64::MAX >> range.leading_zeros();
        loop {
            // The first word is the upper half.
            let word = (u64::from(self.next()) << 32) | u64::from(self.next());
            if word & mask <= range {
                return low + (word & mask);
            }
        }
    }
}
