//! Says what `cargo test` has left to `cargo xtask test`. Without a harness, so that it is seen.

fn main() {
    if !cfg!(feature = "real") {
        println!(
            "\nleft to `cargo xtask test`, as root: tests/real, with the kernel's nftables, a real firewalld and sshd; \
             the tests above that are ignored; the \
             example in Python; format, lints, documents, licences, generated files, commit messages\n"
        );
    }
}
