//! The KEK comes from a file, a variable or a systemd credential, and is shown nowhere.

use crate::process::{Folder, KEK, ended};

#[tokio::test]
async fn the_kek_is_the_same_from_a_file_a_variable_and_a_credential() {
    let folder = Folder::alone();
    std::fs::create_dir(folder.path("credentials")).unwrap();
    folder.write_secret("credentials/sekisho-kek", &format!("{KEK}\n"));
    // Each opens the store that the one before it made.
    let mut source = "{ file = \"kek\" }";
    for (next, variable, value) in [
        (source, None, String::new()),
        ("{ env = \"SEKISHO_KEK\" }", Some("SEKISHO_KEK"), KEK.to_owned()),
        (
            "{ credential = \"sekisho-kek\" }",
            Some("CREDENTIALS_DIRECTORY"),
            folder.path("credentials").display().to_string(),
        ),
    ] {
        folder.edit(source, next);
        source = next;
        if let Some(variable) = variable {
            for verb in ["check", "serve"] {
                let without = folder.run(verb).await;
                assert_eq!((without.code, without.finding_keys()), (2, vec!["keys.kek"]), "{next}: {without:?}");
                assert!(without.stderr.contains(variable), "{next}: {without:?}");
            }
        }
        let command = |verb: &str| {
            let mut command = folder.command(verb);
            command.envs(variable.map(|variable| (variable, &value)));
            command
        };
        let check = ended(command("check")).await;
        assert_eq!(check.code, 0, "{next}: {check:?}");
        let gateway = folder.serve_as(command("serve")).await.stop().await;
        for text in [check.stderr, gateway.stdout(), gateway.stderr()] {
            assert!(!text.contains(KEK), "{next}: {text}");
        }
    }
}

/// Silently another KEK would be the worst answer.
#[cfg(not(feature = "pkcs11"))]
#[tokio::test]
async fn a_kek_in_a_token_needs_a_program_that_can_talk_to_one() {
    let folder = Folder::alone();
    let token = "{ pkcs11 = { module = \"/m.so\", token = \"t\", key = \"k\", pin = { file = \"kek\" } } }";
    folder.edit("{ file = \"kek\" }", token);
    for verb in ["check", "serve"] {
        let ended = folder.run(verb).await;
        assert_eq!((ended.code, ended.finding_keys()), (2, vec!["keys.kek"]), "{ended:?}");
        assert!(ended.stderr.contains("--features pkcs11"), "{ended:?}");
    }
    assert!(!folder.path("data").exists());
}
