//! Guarded sections: a panic inside one becomes an error of the section.
//!
//! redb panics at some kinds of damage. Code that calls redb runs in a guarded section, so a damaged
//! page ends neither a thread nor a process. The panic prints no message. The caller gets an error that
//! says where it was.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};

thread_local! {
    /// How many guarded sections the thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Where the last of them panicked.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs a section. If it panics, the error is the place of the panic, in the source of the program.
///
/// # Errors
/// If it panics.
pub fn guarded<T>(section: impl FnOnce() -> T) -> Result<T, String> {
    DEPTH.set(DEPTH.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(section));
    DEPTH.set(DEPTH.get().saturating_sub(1));
    done.map_err(|_| PLACE.with_borrow_mut(std::mem::take))
}

/// Keeps panics of guarded sections from the hook that is in place. Once per process, after a hook of
/// its own was set.
pub fn install() {
    let before = take_hook();
    set_hook(Box::new(move |panic| {
        if !note(panic) {
            before(panic);
        }
    }));
}

/// Notes where a guarded section panicked; false if this is none.
fn note(panic: &PanicHookInfo<'_>) -> bool {
    let is_guarded = DEPTH.get() > 0;
    if is_guarded {
        let place = panic.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        PLACE.set(place);
    }
    is_guarded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_guarded_section_is_an_error_with_its_place() {
        install();
        let place = guarded(|| assert_eq!(1 + 1, 3)).unwrap_err();
        assert!(place.contains("guard.rs"), "{place}");
        assert_eq!(guarded(|| 7), Ok(7));
        assert_eq!(DEPTH.get(), 0);
    }
}
