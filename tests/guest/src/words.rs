//! What the kernel's command line says about the test, or a file in the initramfs.

use std::error::Error;
use std::fs;

/// The file.
const FILE: &str = "/words";

/// The words of the command line, and of the file if it is there.
pub(crate) struct Words {
    line: String,
}

impl Words {
    /// Reads them.
    pub(crate) fn read() -> Result<Self, Box<dyn Error>> {
        let mut line = fs::read_to_string("/proc/cmdline")
            .map_err(|error| format!("cannot read the command line: {error}"))?;
        if let Ok(more) = fs::read_to_string(FILE) {
            line.push_str(&more);
        }
        Ok(Self { line })
    }

    /// The words as they are.
    pub(crate) fn all(&self) -> impl Iterator<Item = &str> {
        self.line.split_whitespace()
    }

    /// What follows `test.NAME=`; the last one counts.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.all()
            .filter_map(|word| word.strip_prefix("test.")?.strip_prefix(name)?.strip_prefix('='))
            .last()
    }

    /// The same as a number.
    pub(crate) fn number(&self, name: &str, default: u64) -> Result<u64, Box<dyn Error>> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => {
                text.parse().map_err(|_| format!("test.{name}={text} is not a number").into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let line = "quiet test.port=1 test.portal=9 test.port=2\n".to_owned();
        let words = Words { line };
        assert_eq!(words.text("port"), Some("2"));
        assert_eq!(words.number("port", 7).unwrap(), 2);
        assert_eq!(words.number("count", 7).unwrap(), 7);
        assert!(Words { line: "test.port=x".to_owned() }.number("port", 7).is_err());
    }
}
