//! The processor's own clock.

/// The time stamp counter (Intel SDM vol. 3, 19.17): it goes on at a constant rate, alike on all
/// cores of a machine whose kernel has it for its clock. Earlier instructions are not waited for: between
/// two readings lie the packets of a batch.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the instruction has no safe form")]
#[inline]
pub fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Nanoseconds of the kernel's clock, where there is no time stamp counter.
#[cfg(not(target_arch = "x86_64"))]
pub fn ticks() -> u64 {
    static BEGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    BEGIN.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64
}
