//! What an image's configuration (OCI image spec 1.1, config.md) means for a container: environment, working directory, user and
//! command. Pure. Everything else in it (labels, volumes, exposed ports, stop signal, health checks) configures nothing on a host.

use std::collections::BTreeMap;

use oci_spec::image::ImageConfiguration;

/// As most programs find it; an app's user in the stack.
pub const USER_DEFAULT: (u32, u32) = (1_000, 1_000);

/// The environment it wants. What is no `KEY=VALUE` says nothing.
pub fn env(config: &ImageConfiguration) -> BTreeMap<String, String> {
    let pairs = config.config().iter().filter_map(|c| c.env().as_ref()).flatten();
    let pairs = pairs.filter_map(|pair| pair.split_once('=')).filter(|(key, _)| !key.is_empty());
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// Where its command starts: an absolute path, or the root.
pub fn cwd(config: &ImageConfiguration) -> String {
    let cwd = config.config().as_ref().and_then(|c| c.working_dir().clone());
    cwd.filter(|cwd| cwd.starts_with('/')).unwrap_or_else(|| "/".to_owned())
}

/// Who its command is. Nobody said: [`USER_DEFAULT`], never root.
///
/// # Errors
/// A sentence, for what [`parse_user`] refuses.
pub fn user(config: &ImageConfiguration) -> Result<(u32, u32), String> {
    let user = config.config().as_ref().and_then(|c| c.user().clone()).unwrap_or_default();
    if user.is_empty() {
        return Ok(USER_DEFAULT);
    }
    let shown: String = user.chars().take(60).collect();
    parse_user(&user)
        .ok_or_else(|| format!("The image's user {shown:?} is not UID or UID:GID in numbers below 65535"))
}

/// What it runs if nobody says otherwise: its entrypoint, then its command. Empty if it says nothing.
pub fn argv(config: &ImageConfiguration) -> Vec<String> {
    let Some(config) = config.config() else { return Vec::new() };
    [config.entrypoint(), config.cmd()].into_iter().flatten().flatten().cloned().collect()
}

/// `UID` or `UID:GID`. Numbers only: a name would have to be looked up in a file that the image controls, and how that goes wrong has
/// filled advisories (CVE-2026-30892).
pub fn parse_user(text: &str) -> Option<(u32, u32)> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    let number = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u32>().ok().filter(|&n| plain && n < 65_535)
    };
    number(uid).zip(number(gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str) -> ImageConfiguration {
        let text = format!(
            r#"{{"architecture": "amd64", "os": "linux", "rootfs": {{"type": "layers", "diff_ids": []}}, "config": {config}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_user_must_be_numbers_and_never_root_by_default() {
        let user_of = |text: &str| user(&read(&serde_json::json!({ "User": text }).to_string()));
        assert_eq!(user_of(""), Ok(USER_DEFAULT));
        assert_eq!(user_of("1001"), Ok((1001, 1001)));
        assert_eq!(user_of("0:0"), Ok((0, 0)));
        for bad in
            ["root", "1000:", ":1", "-1", "+1", "1 ", "4294967296", "65535", "1:2:3", "1\0", "١", "0x1"]
        {
            assert!(user_of(bad).is_err(), "{bad}");
        }
        // However long it is, and whatever is in it, the sentence is short and harmless.
        let sentence = user_of(&"\u{1b}[2J".repeat(10_000)).unwrap_err();
        assert!(sentence.len() < 600 && !sentence.contains('\u{1b}'), "{sentence}");
    }

    #[test]
    fn the_environment_must_keep_values_with_equals_signs_and_no_nameless_ones() {
        let env = env(&read(r#"{"Env": ["A=b=c", "=x", "nothing", "EMPTY=", "LD_PRELOAD=/evil.so"]}"#));
        let pairs: Vec<_> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(pairs, ["A=b=c", "EMPTY=", "LD_PRELOAD=/evil.so"]);
    }

    #[test]
    fn a_working_directory_that_is_none_must_be_the_root() {
        for (text, wanted) in [("", "/"), ("app", "/"), ("../..", "/"), ("/app/", "/app/")] {
            assert_eq!(cwd(&read(&serde_json::json!({ "WorkingDir": text }).to_string())), wanted);
        }
    }

    #[test]
    fn what_configures_hosts_elsewhere_must_mean_nothing_here() {
        let hostile = read(
            r#"{"Volumes": {"/proc": {}, "/etc": {}}, "ExposedPorts": {"22/tcp": {}, "0/x": {}}, "StopSignal": "SIGKILL; reboot",
                "Labels": {"io.cri-containerd.kind": "sandbox", "dev.berth.app": "{\"processes\": {\"web\": \"evil\"}}"},
                "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["id; $(reboot)"]}"#,
        );
        assert_eq!(env(&hostile), BTreeMap::new());
        assert_eq!((cwd(&hostile).as_str(), user(&hostile)), ("/", Ok(USER_DEFAULT)));
        // Words, not a line for a shell of the host's.
        assert_eq!(argv(&hostile), ["/bin/sh", "-c", "id; $(reboot)"]);
    }
}
