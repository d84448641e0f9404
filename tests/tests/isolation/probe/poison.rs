//! A library that an image makes the host's binary load: before that one's main it tries to open the program it runs in for
//! writing, and ends with errno, or 0 if it could. Compiled by the suite.

extern "C" fn attack() {
    unsafe extern "C" {
        fn _exit(code: i32) -> !;
    }
    let opened = std::fs::OpenOptions::new().write(true).open("/proc/self/exe");
    let code = opened.map_or_else(|error| error.raw_os_error().unwrap_or(1), |_| 0);
    // SAFETY: a number.
    unsafe { _exit(code) }
}

#[used]
#[unsafe(link_section = ".init_array")]
static ATTACK: extern "C" fn() = attack;
