//! Tests how `scripts/headless` reads apt's package sources, without installing anything.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::Command;

/// The stdout and stderr of a piece of bash. It can call the functions of `scripts/headless`, and `$1` is a folder.
fn bash(script: &str, folder: &Path) -> [String; 2] {
    let script = format!(". scripts/headless\n{script}");
    let mut command = Command::new("bash");
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["-c", &script, "bash"]).arg(folder);
    let output = command.output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{stderr}");
    [stdout, stderr]
}

/// A folder like `/etc/apt`, with these files.
fn sources(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sources.list.d")).unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn backports_come_from_the_mirror_of_debian() {
    let stanza = "Types: deb\nSuites: bookworm-backports\nComponents: main\n";
    for (name, text, expected) in [
        ("sources.list", "deb http://mirror.test/debian bookworm main contrib\n", "deb http://mirror.test/debian"),
        (
            "sources.list.d/a.list",
            "  deb\t[ arch=amd64 signed-by=/k.gpg ]  https://mirror.test/d  bookworm  contrib main # ours\n",
            "deb\t[ arch=amd64 signed-by=/k.gpg ]  https://mirror.test/d",
        ),
        (
            "sources.list",
            "deb [signed-by=/k.gpg]http://mirror.test/debian bookworm main",
            "deb [signed-by=/k.gpg]http://mirror.test/debian",
        ),
        // These are not sources of Debian's main archive: other suites, other components, source packages, comments.
        ("sources.list", "deb http://mirror.test/debian-security bookworm-security main\n", ""),
        ("sources.list", "deb http://mirror.test/linux/debian bookworm stable\n", ""),
        (
            "sources.list",
            "deb-src http://mirror.test/debian bookworm main\n# deb http://mirror.test/debian bookworm main\n",
            "",
        ),
        ("sources.list", "deb http://mirror.test/debian trixie main # bookworm main\n", ""),
        ("sources.list", "deb http://mirror.test/debian bookworm contrib # main\n", ""),
        ("sources.list.d/a.list.save", "deb http://mirror.test/debian bookworm main\n", ""),
        (
            "sources.list.d/b.sources",
            "Types: deb-src\nURIs: http://mirror.test/debian\nSuites: bookworm\nComponents: main\n",
            "",
        ),
        (
            "sources.list.d/b.sources",
            "Enabled: no\nTypes: deb\nURIs: http://mirror.test/debian\nSuites: bookworm\nComponents: main\n",
            "",
        ),
    ] {
        let expected =
            if expected.is_empty() { String::new() } else { format!("{expected} bookworm-backports main\n\n") };
        let folder = sources(&[(name, text)]);
        assert_eq!(bash("backports \"$1\"", folder.path())[0], expected, "{text}");
    }
    // The file may contain a key, over several lines. Field names may be in any case.
    let text = "# Debian\n\nTypes: deb deb-src\n# http://snapshot.test/debian\nURIs: http://mirror.test/debian\n \
                https://other.test/debian\nsuites: bookworm bookworm-updates\nComponents:\n contrib main\nSigned-By:\n \
                -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\nArchitectures: amd64\n \n\
                Types: deb\nURIs: http://mirror.test/debian-security\nSuites: bookworm-security\nComponents: main\n\
                Signed-By: /k.gpg\n";
    let rest = "URIs: http://mirror.test/debian\n https://other.test/debian\nSigned-By:\n \
                -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBF\nArchitectures: amd64\n\n";
    let folder = sources(&[("sources.list.d/debian.sources", text)]);
    assert_eq!(bash("backports \"$1\"", folder.path())[0], format!("{stanza}{rest}"));
    // A stanza ends with its file. All sources are found, and a folder without sources has none.
    let last = "Types: deb\nURIs: http://third.test/\nSuites: bookworm\nComponents: main";
    let folder = sources(&[
        ("sources.list", "deb http://first.test/debian bookworm main"),
        ("sources.list.d/a.sources", last),
        ("sources.list.d/b.sources", "Signed-By: /k.gpg\n"),
    ]);
    let first = "deb http://first.test/debian bookworm-backports main\n\n";
    assert_eq!(bash("backports \"$1\"", folder.path())[0], format!("{first}{stanza}URIs: http://third.test/\n\n"));
    assert_eq!(bash("backports \"$1\"", sources(&[]).path())[0], "");
    assert_eq!(bash("backports \"$1\"", Path::new("/none"))[0], "");
}

/// An `apt-get update` that succeeds only for the one mirror that has backports. It does not check its arguments.
const APT: &str = r#"
as_root() { "$@"; }
apt-get() {
    local file
    for file in "$folder"/sources.list.d/gpuconv-backports.*; do grep -q mirror.test "$file"; done
}
folder=$1
"#;

#[test]
fn a_source_without_backports_is_removed_again() {
    let shop = ("sources.list.d/a-shop.list", "deb [signed-by=/shop.gpg] https://shop.test/apt bookworm main\n");
    let added = |files: &[(&str, &str)]| {
        let folder = sources(files);
        let [_, said] = bash(&format!("{APT}\nadd_backports \"$1\" || say none"), folder.path());
        let added = |kind: &str| {
            fs::read_to_string(folder.path().join(format!("sources.list.d/gpuconv-backports.{kind}"))).ok()
        };
        (added("list"), added("sources"), said)
    };
    let (list, stanza, said) =
        added(&[shop, ("sources.list.d/debian.list", "deb http://mirror.test/debian bookworm main\n")]);
    assert_eq!((list.as_deref(), stanza), (Some("deb http://mirror.test/debian bookworm-backports main\n"), None));
    assert!(said.contains("package sources") && !said.contains("none"), "{said}");

    let debian = "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm\nComponents: main\nSigned-By: /k.gpg\n";
    let (list, stanza, _) = added(&[shop, ("sources.list.d/debian.sources", debian)]);
    assert_eq!(list, None);
    let expected = "Types: deb\nSuites: bookworm-backports\nComponents: main\nURIs: http://mirror.test/debian\nSigned-By: /k.gpg\n";
    assert_eq!(stanza.as_deref(), Some(expected));

    for files in [&[shop][..], &[]] {
        let (list, stanza, said) = added(files);
        assert_eq!((list, stanza), (None, None));
        assert!(said.ends_with("headless: none\n"), "{said}");
    }
}
