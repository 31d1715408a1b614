//! Keys of `ssh-keygen`, and signatures that both sides agree on.

use std::{fs, path::Path, process::Command};

use base64ct::{Base64, Encoding as _};
use doorknock::spa::key_file::{KeyFile, KeyFileError};
use doors_spa::{
    card::Card,
    gateway::GatewayKey,
    identity::{ClientKey, DoorId},
    request::{Operation, Request},
    seal::UnsignedKnock,
    signature::NAMESPACE,
};
use doors_text::error_chain::in_one_line;
use ed25519_dalek::Signer as _;
use getrandom::SysRng;
use rand_core::UnwrapErr;
use zeroize::Zeroizing;

use crate::{
    home::{Home, Said, run},
    testbed::public_key,
};

fn nobody(_: &str) -> std::io::Result<Zeroizing<String>> {
    Err(std::io::ErrorKind::NotFound.into())
}

fn unlock(path: &Path, passphrase: &str) -> Result<ed25519_dalek::SigningKey, KeyFileError> {
    KeyFile::read(path)?.unlock(|_| Ok(Zeroizing::new(passphrase.to_owned())))
}

fn request(client: &ClientKey) -> Request {
    Request {
        operation: Operation::Open { door: DoorId::of("ssh"), wanted: 30 },
        time: 1_800_000_000_000,
        nonce: *b"a nonce!",
        client: client.id(),
        address: None,
        challenge: [0; 8],
    }
}

#[test]
fn a_key_of_ssh_keygen_is_read_plain_and_encrypted() {
    let home = Home::new();
    let plain = home.key("plain", "ed25519", "");
    let key = KeyFile::read(&plain).unwrap();
    assert_eq!(key.public(), &public_key(&plain));
    assert_eq!(key.unlock(nobody).unwrap().verifying_key().as_bytes(), public_key(&plain).bytes());

    let locked = home.key("locked", "ed25519", "open sesame");
    assert_eq!(KeyFile::read(&locked).unwrap().public(), &public_key(&locked));
    let key = unlock(&locked, "open sesame").unwrap();
    assert_eq!(key.verifying_key().as_bytes(), public_key(&locked).bytes());
    assert!(matches!(unlock(&locked, "open barley"), Err(KeyFileError::Passphrase { .. })));
    let error = KeyFile::read(&locked).unwrap().unlock(nobody).unwrap_err();
    assert!(in_one_line(&error).contains("ssh-add"), "{error}");
}

#[test]
fn a_passphrase_may_be_wrong_twice() {
    let home = Home::new();
    let locked = home.key("locked", "ed25519", "open sesame");
    let mut asked = Vec::new();
    let key = KeyFile::read(&locked).unwrap().unlock(|prompt| {
        asked.push(prompt.to_owned());
        Ok(Zeroizing::new(if asked.len() < 3 { "wrong" } else { "open sesame" }.to_owned()))
    });
    assert!(key.is_ok());
    assert_eq!(asked.len(), 3);
    assert!(asked[0].contains("locked"), "the prompt names the file: {asked:?}");
}

#[test]
fn a_key_of_another_type_is_refused_by_its_name() {
    let home = Home::new();
    for (kind, name) in [("rsa", "ssh-rsa"), ("ecdsa", "ecdsa-sha2-nistp256")] {
        let path = home.key(kind, kind, "");
        let error = KeyFile::read(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("of type {name}")) && error.contains("ssh-ed25519"), "{error}");
        // Its public half tells, too.
        assert!(matches!(KeyFile::read(&path.with_extension("pub")), Err(KeyFileError::OtherType { .. })));
    }
    fs::write(home.path("text"), "-----BEGIN NOTHING-----\n").unwrap();
    assert!(matches!(KeyFile::read(&home.path("text")), Err(KeyFileError::NoKey { .. })));
    assert!(matches!(KeyFile::read(&home.path("none")), Err(KeyFileError::Read { .. })));
}

/// OpenSSH signs the message; what we sign is the same, so its program could have made our signature.
#[test]
fn our_signature_is_the_one_that_ssh_keygen_makes_and_verifies() {
    let home = Home::new();
    let path = home.key("id", "ed25519", "");
    let client = public_key(&path);
    let gateway = GatewayKey::generate(&mut UnwrapErr(SysRng));
    let card: Card = gateway.card();
    let request = request(&client);
    let letter = UnsignedKnock::new(&card, &client, &request, &mut UnwrapErr(SysRng)).unwrap();
    let ours = unlock(&path, "").unwrap().sign(letter.to_sign()).to_bytes();
    let (knock, _) = letter.seal(&ours).unwrap();

    // docs/spa.md: what is signed is info, enc, request.
    let info = [&b"port-knocking-doors spa/1"[..], card.gateway()].concat();
    let message = home.path("message");
    fs::write(&message, [&info[..], &knock[16..48], &request.encode()].concat()).unwrap();

    run(Command::new("ssh-keygen")
        .args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"])
        .arg(&path)
        .arg(&message));
    let armor = fs::read_to_string(message.with_extension("sig")).unwrap();
    let text: String = armor.lines().filter(|line| !line.starts_with("-----")).collect();
    let theirs = Base64::decode_vec(&text).unwrap();
    assert_eq!(theirs.last_chunk::<64>().unwrap(), &ours);

    let string = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let signature = [string(b"ssh-ed25519"), string(&ours)].concat();
    let blob = [
        b"SSHSIG\0\0\0\x01".to_vec(),
        string(&client.encoded()),
        string(NAMESPACE.as_bytes()),
        string(b""),
        string(b"sha512"),
        string(&signature),
    ];
    let armor = format!(
        "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n",
        Base64::encode_string(&blob.concat())
    );
    fs::write(home.path("ours.sig"), armor).unwrap();
    let line = fs::read_to_string(path.with_extension("pub")).unwrap();
    fs::write(home.path("allowed"), format!("me {line}")).unwrap();
    let mut verify = Command::new("ssh-keygen");
    verify.args(["-Y", "verify", "-n", NAMESPACE, "-I", "me", "-f"]).arg(home.path("allowed"));
    verify.arg("-s").arg(home.path("ours.sig")).stdin(fs::File::open(&message).unwrap());
    let said = Said::of(&mut verify);
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn keygen_makes_what_ssh_keygen_reads_and_overwrites_nothing() {
    let home = Home::new();
    let said = home.doorknock(&["keygen", "--no-passphrase"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let path = home.path(".ssh/id_ed25519_doors");
    assert_eq!(fs::read_to_string(path.with_extension("pub")).unwrap().trim_end(), said.out);
    let theirs = Said::of(Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path));
    assert_eq!(theirs.out, said.out);

    let before = fs::read(&path).unwrap();
    let again = home.doorknock(&["keygen", "--no-passphrase"]);
    assert_eq!((again.code, fs::read(&path).unwrap()), (Some(1), before));
    assert!(again.err.contains("is there already"), "{again:?}");

    let locked = home.path("locked");
    let line = doorknock::spa::keygen::make(&locked, Some("open sesame")).unwrap();
    let theirs =
        Said::of(Command::new("ssh-keygen").args(["-y", "-P", "open sesame"]).arg("-f").arg(&locked));
    assert_eq!(theirs.out, line);
    assert!(unlock(&locked, "open sesame").is_ok());
}
