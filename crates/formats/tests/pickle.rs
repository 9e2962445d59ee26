//! Checkpoints of PyTorch: those that torch wrote, and those that nobody should open.

mod made;

use made::{ZipEntry, checkpoint, dict, golden, number, push, tensor, zip};
use narthex_formats::pickle::{StateDict, read_state_dict, to_safetensors};
use safetensors::SafeTensors;
use std::{fs, path::Path};

fn check_equal(state: &StateDict, expected: &Path) {
    let bytes = fs::read(expected).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(state.tensors().len(), expected.len());
    for (name, tensor) in state.tensors() {
        let view = expected.tensor(name).unwrap();
        assert_eq!(tensor.shape, view.shape(), "{name}");
        assert_eq!(state.bytes(tensor).as_ref(), view.data(), "{name}");
    }
}

#[test]
fn what_torch_saves_is_read() {
    let expected = golden("pickle/expected.safetensors");
    for name in ["zip.pt", "protocol-4.pt", "legacy.bin", "wrapped.pt"] {
        let state = read_state_dict(&golden("pickle").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        check_equal(&state, &expected);
        assert_eq!(state.passed_over(), ["mask", "positions"], "{name}");
    }
    check_equal(&read_state_dict(&golden("pickle/module.pt")).unwrap(), &golden("pickle/module.safetensors"));
    let error = read_state_dict(&golden("pickle/double.pt")).unwrap_err().to_string();
    assert!(error.contains("tensor `x` cannot be read") && error.contains("float64"), "{error}");
    let error = read_state_dict(&golden("pickle/code.pt")).unwrap_err().to_string();
    assert!(error.contains("asks for torch.nn.modules.container.Sequential"), "{error}");
}

#[test]
fn converted_to_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let converted = to_safetensors(&golden("pickle/zip.pt"), folder.path()).unwrap();
    assert_eq!(converted.files, [folder.path().join("model.safetensors")]);
    let (found, expected) =
        (fs::read(&converted.files[0]).unwrap(), fs::read(golden("pickle/expected.safetensors")).unwrap());
    let (found, expected) = (SafeTensors::deserialize(&found).unwrap(), SafeTensors::deserialize(&expected).unwrap());
    assert_eq!(found.len(), expected.len());
    for (name, view) in expected.iter() {
        assert_eq!(found.tensor(name).unwrap(), view);
    }
    let converted = to_safetensors(&golden("pickle/sharded"), folder.path()).unwrap();
    assert_eq!(converted.files.len(), 3);
    let index: serde_json::Value = serde_json::from_slice(&fs::read(&converted.files[2]).unwrap()).unwrap();
    assert_eq!(index["weight_map"]["part"], "model-00002-of-00002.safetensors");
    assert!(to_safetensors(folder.path(), folder.path()).unwrap_err().what().contains("no checkpoint"));
    fs::write(folder.path().join("pytorch_model.bin.index.json"), r#"{"weight_map": {"a": "../../x.bin"}}"#).unwrap();
    assert!(
        to_safetensors(folder.path(), folder.path()).unwrap_err().what().contains("`../../x.bin` leaves the folder")
    );
}

fn read(bytes: &[u8]) -> Result<StateDict, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pt");
    fs::write(&path, bytes).unwrap();
    read_state_dict(&path).map_err(|error| {
        assert!(error.place().unwrap().ends_with("x.pt"), "{error}");
        error.to_string()
    })
}

fn check(bytes: &[u8], expected: &str) {
    let error = read(bytes).unwrap_err();
    assert!(error.contains(expected), "{expected}: {error}");
}

#[test]
fn code_is_refused_by_name_and_never_run() {
    let marker = std::env::temp_dir().join(format!("narthex-formats-{}", std::process::id()));
    let command = push(&format!("touch {}", marker.display()));
    let nothing = "refused, nothing was run";
    let call = |global: &[u8]| {
        [b"\x80\x02".to_vec(), global.to_vec(), b"(".to_vec(), command.clone(), b"tR.".to_vec()].concat()
    };
    for (pickle, name) in [
        (call(b"cos\nsystem\n"), "asks for os.system, which"),
        (call(b"cbuiltins\neval\n"), "asks for builtins.eval, which"),
        (call(b"c__builtin__\ngetattr\n"), "asks for __builtin__.getattr, which"),
        (call(b"csubprocess\nPopen\n"), "asks for subprocess.Popen, which"),
        (call(b"ctorch\nload\n"), "asks for torch.load, which"),
        (call(b"ctorch\nfloat32.__class__\n"), "asks for torch.float32.__class__, which"),
        (call(&[push("posix"), push("system"), b"\x93".to_vec()].concat()), "asks for posix.system, which"),
        (call(b"ctorch._utils\n_rebuild_tensor_v2 \n"), "asks for torch._utils._rebuild_tensor_v2 , which"),
        ([b"\x80\x02(".to_vec(), command.clone(), b"ios\nsystem\n.".to_vec()].concat(), "makes an object of a class"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.".to_vec(), "makes an object of a class"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.".to_vec(), "the wrong arguments to Storage"),
        (
            [b"\x80\x02ccollections\nOrderedDict\n}".to_vec(), push("a"), b"Nsb.".to_vec()].concat(),
            "sets the inner state",
        ),
        ([b"\x80\x02".to_vec(), push("x"), b")R.".to_vec()].concat(), "calls what is no function"),
        (b"\x80\x02\x82\x01.".to_vec(), "asks for an extension by number"),
        (b"\x80\x02Pabc\n.".to_vec(), "persistent identifier in text form"),
    ] {
        check(&checkpoint(&pickle), name);
        let error = read(&checkpoint(&pickle)).unwrap_err();
        assert!(error.contains(nothing) || name.contains("wrong arguments"), "{error}");
        // The same within the older format.
        let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";
        check(&[magic.to_vec(), pickle.clone()].concat(), name);
        check(&pickle, name);
    }
    assert!(!marker.exists());
}

#[test]
fn broken_pickles_are_refused() {
    let wrap = |opcodes: &[u8]| checkpoint(&[b"\x80\x02", opcodes, b"."].concat());
    for (opcodes, expected) in [
        (b"".to_vec(), "takes more from its stack"),
        (b"R".to_vec(), "takes more from its stack"),
        (b"N(0".to_vec(), "takes more from its stack"),
        (b"t".to_vec(), "a mark that is not there"),
        (b"h\x07".to_vec(), "recalls number 7, which it never kept"),
        (b"NNa".to_vec(), "appends to what is no list"),
        (b"]NNs".to_vec(), "no dictionary"),
        (b"}(Nu".to_vec(), "a key without a value"),
        (b"\xff".to_vec(), "the opcode 0xff"),
        (b"X\xff\xff\xff\xff".to_vec(), "the file ends within a text"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), "the file ends within a text"),
        (b"\x8b\xff\xff\xff\x7f".to_vec(), "the file ends within a number"),
        (b"X\x01\0\0\0\xff".to_vec(), "not UTF-8"),
        (b"\x80\x09".to_vec(), "protocol 9 is not supported"),
        (b"cos".to_vec(), "whose name has no end"),
        (vec![b'('; 5000], "the nesting in the pickle is 1025, more than 1024"),
        (vec![b'N'; (1 << 20) + 2], "the stack of the pickle"),
        (b"]0".repeat((1 << 21) + 1), "the number of objects in the pickle"),
        (
            (0..(1u32 << 21) + 2)
                .flat_map(|i| [b"Nr".to_vec(), i.to_le_bytes().to_vec(), b"0".to_vec()].concat())
                .collect(),
            "the memory of the pickle",
        ),
        (b"NQ".to_vec(), "describes no storage"),
        (b")Q".to_vec(), "describes no storage"),
        (
            [
                b"(".to_vec(),
                push("storage"),
                b"ctorch\nSize\n".to_vec(),
                push("0"),
                push("cpu"),
                number(1),
                b"tQ".to_vec(),
            ]
            .concat(),
            "describes no storage",
        ),
        (
            [
                b"(".to_vec(),
                push("module"),
                b"ctorch\nFloatStorage\n".to_vec(),
                push("0"),
                push("cpu"),
                number(1),
                b"tQ".to_vec(),
            ]
            .concat(),
            "describes no storage",
        ),
        (b"]".to_vec(), "holds no tensors by name"),
        (b"}".to_vec(), "holds no tensors by name"),
    ] {
        check(&wrap(&opcodes), expected);
    }
    // Lists of lists of lists, each ten times the former, and one that holds itself: shared, so never expanded.
    let laughs: Vec<u8> = (0..100).flat_map(|_| b"(2222222222l".to_vec()).collect();
    check(&wrap(&[b"]".to_vec(), b"2".repeat(2000), laughs].concat()), "takes more from its stack");
    let doubled: Vec<u8> =
        (0..200u8).flat_map(|i| [vec![b'('], [b'h', i].repeat(10), vec![b'l', b'q', i + 1, b'0']].concat()).collect();
    check(&wrap(&[b"]q\0".to_vec(), doubled].concat()), "holds no tensors by name");
    check(&wrap(b"]q\0h\0a"), "holds no tensors by name");
    check(&wrap(b"}q\0X\x05\0\0\0modelh\0s"), "holds no tensors by name");
}

#[test]
fn tensors_stay_in_their_storage() {
    let good = read(&checkpoint(&dict(&[("a", tensor("0", 6, 1, &[2, 2], &[1, 2]))]))).unwrap();
    let values: Vec<u8> = [1f32, 3.0, 2.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(good.bytes(&good.tensors()["a"]).as_ref(), values);
    for (value, expected) in [
        (tensor("0", 6, 0, &[7], &[1]), "it goes beyond the 6 elements of its storage `0`"),
        (tensor("0", 6, 5, &[2], &[1]), "it goes beyond"),
        (tensor("0", 6, 0, &[2], &[6]), "it goes beyond"),
        (tensor("0", 6, i64::MAX, &[1], &[1]), "it goes beyond"),
        (tensor("0", 6, 7, &[0], &[1]), "it goes beyond"),
        (tensor("0", 6, 0, &[2, i64::MAX], &[i64::MAX, 1]), "it goes beyond"),
        (tensor("0", 6, 0, &[i64::MAX, i64::MAX], &[0, 0]), "it goes beyond"),
        (tensor("0", 6, 0, &[1 << 40], &[0]), "repeats the elements of its storage `0` more than 16 times"),
        (tensor("0", 6, -1, &[2], &[1]), "a size, stride or offset of a tensor is Int(-1)"),
        (tensor("0", 6, 0, &[2], &[-1]), "a size, stride or offset of a tensor is Int(-1)"),
        (tensor("0", 6, 0, &[2], &[1, 1]), "1 dimensions and 2 strides"),
        (tensor("0", 6, 0, &[1; 17], &[1; 17]), "the number of dimensions of a tensor is 17"),
        (tensor("0", 7, 0, &[6], &[1]), "its storage `0` has 24 bytes"),
        (tensor("0", i64::MAX, 0, &[6], &[1]), "its storage `0` has 24 bytes"),
        (tensor("9", 6, 0, &[6], &[1]), "its storage `9` is not in the file"),
        (tensor("../0", 6, 0, &[6], &[1]), "its storage `../0` is not in the file"),
    ] {
        check(&checkpoint(&dict(&[("a", value)])), expected);
    }
    let one = tensor("0", 6, 0, &[6], &[1]);
    check(&checkpoint(&dict(&[("a", one.clone()), ("a", one.clone())])), "tensor `a` is there twice");
    // No dimension, and a size of 0 beside an endless one.
    let zero = read(&checkpoint(&dict(&[
        ("a", tensor("0", 6, 0, &[0, i64::MAX], &[1, 1])),
        ("b", tensor("0", 6, 5, &[], &[])),
    ])));
    let zero = zero.unwrap();
    assert_eq!((zero.bytes(&zero.tensors()["a"]).len(), zero.bytes(&zero.tensors()["b"]).len()), (0, 4));
    // Each tensor is within its own limit, all together are not: opcodes are few, as the tensor is kept and recalled.
    let names: Vec<Vec<u8>> = (0..4000).map(|i| [push(&i.to_string()), b"h\x01".to_vec()].concat()).collect();
    let wide = [tensor("0", 6, 0, &[6, 16], &[1, 0]), b"q\x010".to_vec()].concat();
    let pickle = [b"\x80\x02".to_vec(), wide, b"}(".to_vec(), names.concat(), b"u.".to_vec()].concat();
    check(&checkpoint(&pickle), "more than 8 times the file");
}

#[test]
fn zip_files_that_lie_are_refused() {
    let pickle = dict(&[("a", tensor("0", 6, 0, &[6], &[1]))]);
    let good = [ZipEntry::new("archive/data.pkl", &pickle), ZipEntry::new("archive/data/0", &[0; 24])];
    read(&zip(&good)).unwrap();
    let with = |change: &dyn Fn(&mut Vec<ZipEntry>)| {
        let mut entries = good.to_vec();
        change(&mut entries);
        zip(&entries)
    };
    for (bytes, expected) in [
        (with(&|entries| entries[1].method = 8), "`archive/data/0` of the zip file is compressed"),
        (with(&|entries| entries[1].flags = 1), "is encrypted"),
        (with(&|entries| entries[1].len = 25), "lies beyond its end"),
        (with(&|entries| entries.push(entries[1].clone())), "two entries `archive/data/0`"),
        (with(&|entries| entries[1].name = "../../etc/passwd".into()), "`../../etc/passwd` leaves the folder"),
        (with(&|entries| entries[1].name = "/etc/passwd".into()), "`/etc/passwd` leaves the folder"),
        (with(&|entries| entries[1].name = "a\\..\\b".into()), "leaves the folder"),
        (with(&|entries| entries[1].local_name = Some("archive/data/1".into())), "another name in its own header"),
        (with(&|entries| entries[1].header = Some(0)), "another name in its own header"),
        (with(&|entries| entries[1].header = Some(1)), "not where its directory says"),
        (with(&|entries| entries[1].header = Some(u32::MAX - 1)), "lies beyond its end"),
        (with(&|entries| entries.remove(1).len = 0), "its storage `0` is not in the file"),
        (with(&|entries| entries.remove(0).len = 0), "no `data.pkl`"),
        (with(&|entries| entries.push(ZipEntry::new("b/data.pkl", &pickle))), "more than one `data.pkl`"),
        (with(&|entries| entries.push(ZipEntry::new("archive/constants.pkl", b"."))), "TorchScript"),
        (with(&|entries| entries.push(ZipEntry::new("archive/byteorder", b"big"))), "big-endian"),
        (zip(&[]).to_vec(), "neither a zip file nor"),
    ] {
        check(&bytes, expected);
    }
    // Two entries over the same bytes.
    let mut first = ZipEntry::new("archive/data.pkl", &pickle);
    first.len += 8;
    check(&zip(&[first, good[1].clone()]), "overlap");
    // The directory says that it lies elsewhere, or has more entries.
    let whole = zip(&good);
    let end = whole.len() - 22;
    for (at, expected) in
        [(16, "lies beyond its end"), (12, "lies beyond its end"), (10, "the file ends within the directory")]
    {
        let mut lying = whole.clone();
        lying[end + at + 1] = 0xff;
        check(&lying, expected);
    }
    check(&[b"PK\x03\x04".to_vec(), vec![0; 100]].concat(), "the zip file has no end");
}
