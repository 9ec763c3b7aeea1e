//! Black-box tests of the mica binary.
