//! Lists as runc prints them.

use super::*;

#[test]
fn columns_are_as_wide_as_their_longest_cell_and_three() {
    let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
    let text = table(&[row("ID", "OWNER"), row("a-very-long-id", "root")]);
    assert_eq!(text, "ID               OWNER\na-very-long-id   root\n");
    let text = table(&[row("ID", "OWNER"), row("a", "root")]);
    assert_eq!(text, "ID          OWNER\na           root\n");
}
