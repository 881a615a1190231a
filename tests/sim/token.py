"""An in-memory PKCS#11 device, in the shape python-pkcs11 gives a real one, that can be broken.

`Device` counts logins, locks its PIN, fills up, and can be told to fail or be pulled out before or
after any call: what SoftHSM never does, and what a person's token does on a bad day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pkcs11
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from pkcs11 import Attribute, Mechanism, ObjectClass, TokenFlag

from custody.keys.pin import PinNotice, PinReader
from custody.keys.pkcs11 import Pkcs11Token
from custody.keys.pkcs11_module import Module
from custody.keys.pkcs11_templates import CURVES
from custody.keys.uri import Pkcs11Uri

_HASHES: dict[int, hashes.HashAlgorithm] = {
    32: hashes.SHA256(),
    48: hashes.SHA384(),
    64: hashes.SHA512(),
}


@dataclass
class Fault:
    """Raise ``error`` at the ``nth`` call named ``call``, before or after it took effect."""

    call: str
    error: type[pkcs11.PKCS11Error]
    when: str = "before"
    nth: int = 1
    pulled: bool = False


@dataclass
class Device:
    """One token and everything that can go wrong with it."""

    label: str = "sim"
    serial: bytes = b"0000000000000001"
    pin: bytes = b"123456"
    capacity: int = 100
    tries: int = 3
    pinpad: bool = False
    """The PIN is typed at the device: ``typed`` is what a person types there."""
    typed: bytes = b"123456"
    slot_id: int = 7
    mechanisms: tuple[Mechanism, ...] = (
        Mechanism.EC_KEY_PAIR_GEN,
        Mechanism.ECDSA,
        Mechanism.ECDH1_DERIVE,
    )
    present: bool = True
    logged_in: bool = False
    calls: Counter[str] = field(default_factory=Counter)
    objects: list[Item] = field(default_factory=list)
    sessions: int = 0
    faults: list[Fault] = field(default_factory=list)
    lies: dict[Attribute, Any] = field(default_factory=dict)
    """Attributes a made private key reads back with another value than was asked for."""
    tries_left: int = field(init=False)

    def __post_init__(self) -> None:
        self.tries_left = self.tries

    @property
    def flags(self) -> TokenFlag:
        shown = TokenFlag.TOKEN_INITIALIZED | TokenFlag.USER_PIN_INITIALIZED
        shown |= TokenFlag.LOGIN_REQUIRED
        if self.pinpad:
            shown |= TokenFlag.PROTECTED_AUTHENTICATION_PATH
        if self.tries_left < self.tries:
            shown |= TokenFlag.USER_PIN_COUNT_LOW
        if self.tries_left == 1:
            shown |= TokenFlag.USER_PIN_FINAL_TRY
        if self.tries_left == 0:
            shown |= TokenFlag.USER_PIN_LOCKED
        return shown

    def fail(self, call: str, error: type[pkcs11.PKCS11Error], **more: Any) -> None:
        """Plan one fault."""
        self.faults.append(Fault(call, error, **more))

    def pull(self, call: str, **more: Any) -> None:
        """Plan the token's being pulled out at ``call``."""
        self.faults.append(Fault(call, pkcs11.DeviceRemoved, pulled=True, **more))

    def reach(self, call: str, when: str = "before") -> None:
        """Count a call and let the faults planned for it happen."""
        if not self.present:
            raise pkcs11.DeviceRemoved
        if when == "before":
            self.calls[call] += 1
        for fault in self.faults:
            if (fault.call, fault.when, fault.nth) == (call, when, self.calls[call]):
                if fault.pulled:
                    self.present = self.logged_in = False
                raise fault.error

    def entered(self, pin: Any) -> bytes:
        """Return the PIN that arrives: over the library, or by the device's own keys."""
        if pin is pkcs11.PROTECTED_AUTH:
            assert self.pinpad, "a device without keys of its own is never told to use them"
            return self.typed
        assert not self.pinpad, "a PIN that is typed at the device passes no library"
        return bytes(pin.encode("utf-8"))

    def reaffirm(self, pin: Any) -> None:
        """Take the PIN again for one use of a key (C_Login with CKU_CONTEXT_SPECIFIC)."""
        if pin is None:
            raise pkcs11.UserNotLoggedIn
        self.reach("reaffirm")
        if self.tries_left == 0:
            raise pkcs11.PinLocked
        # The binding passes bytes here, and knows no way to have them typed at the device.
        if bytes(pin.encode("utf-8")) != self.pin:
            self.tries_left -= 1
            raise pkcs11.PinLocked if self.tries_left == 0 else pkcs11.PinIncorrect
        self.tries_left = self.tries

    def module(self) -> Module:
        """Return this device as a loaded library."""
        return Module(Library([self]), path=Path("/sim/libsim.so"))

    def open(
        self,
        pin: PinReader | None = None,
        *,
        pin_source: str | None = None,
        notice: PinNotice | None = None,
    ) -> Pkcs11Token:
        """Open the device as `custody.keys.pkcs11.open_token` opens a real one."""
        uri = Pkcs11Uri(token=self.label, module_name="sim", pin_source=pin_source)
        return Pkcs11Token(self.module(), uri, pin=pin, notice=notice)


class Library:
    manufacturer_id = "custody tests"
    library_description = "in-memory tokens"
    library_version = (1, 0)

    def __init__(self, devices: list[Device]) -> None:
        self.devices = devices

    def get_slots(self, *, token_present: bool) -> list[Slot]:
        return [Slot(device) for device in self.devices if device.present]


class Slot:
    manufacturer_id = "custody tests"
    slot_description = "memory"

    def __init__(self, device: Device) -> None:
        self.device = device
        self.slot_id = device.slot_id

    def get_mechanisms(self) -> set[Mechanism]:
        self.device.reach("mechanisms")
        return set(self.device.mechanisms)

    def get_token(self) -> SimToken:
        return SimToken(self)


class SimToken:
    manufacturer_id = "custody tests"
    model = "sim"
    firmware_version = (1, 0)

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.device = slot.device
        self.label, self.serial, self.flags = (
            self.device.label,
            self.device.serial,
            self.device.flags,
        )

    def open(
        self, *, rw: bool = False, user_pin: Any = None, attribute_mapper: Any = None
    ) -> Session:
        self.device.reach("open")
        self.device.sessions += 1
        if user_pin is not None:
            self._login(self.device.entered(user_pin))
        return Session(self.device, rw=rw, owner=user_pin is not None)

    def _login(self, pin: bytes) -> None:
        device = self.device
        device.reach("login")
        if device.logged_in:
            raise pkcs11.UserAlreadyLoggedIn
        if device.tries_left == 0:
            raise pkcs11.PinLocked
        if pin != device.pin:
            device.tries_left -= 1
            raise pkcs11.PinLocked if device.tries_left == 0 else pkcs11.PinIncorrect
        device.tries_left = device.tries
        device.logged_in = True
        device.reach("login", "after")


class Session:
    def __init__(self, device: Device, *, rw: bool, owner: bool) -> None:
        self.device = device
        self.rw = rw
        self.owner = owner

    def close(self) -> None:
        if self.owner:
            self.device.reach("logout")
            self.device.logged_in = False
        self.device.reach("close")
        self.device.sessions -= 1

    def generate_random(self, nbits: int) -> bytes:
        self.device.reach("random")
        return bytes(range(nbits // 8))

    def get_objects(self, attrs: dict[Attribute, Any]) -> Iterator[Item]:
        self.device.reach("find")
        for item in list(self.device.objects):
            hidden = item.attributes[Attribute.PRIVATE] and not self.device.logged_in
            if not hidden and all(item.attributes.get(key) == attrs[key] for key in attrs):
                yield item

    def create_domain_parameters(
        self, key_type: object, attrs: dict[Attribute, Any], *, local: bool
    ) -> Parameters:
        return Parameters(self, CURVES[attrs[Attribute.EC_PARAMS]], attrs[Attribute.EC_PARAMS])


class Parameters:
    def __init__(self, session: Session, curve: ec.EllipticCurve, params: bytes) -> None:
        self.session = session
        self.curve = curve
        self.params = params

    def generate_keypair(
        self,
        *,
        public_template: dict[Attribute, Any],
        private_template: dict[Attribute, Any],
        **_: Any,
    ) -> tuple[Item, Item]:
        device = self.session.device
        device.reach("generate")
        if not (self.session.rw and device.logged_in):
            raise pkcs11.SessionReadOnly
        if len(device.objects) + 2 > device.capacity:
            raise pkcs11.DeviceMemory
        secret = ec.generate_private_key(self.curve)
        private, public = key_pair(device, secret, public_template, private_template)
        private.attributes.update(device.lies)
        device.reach("generate", "after")
        return public, private


def key_pair(
    device: Device,
    secret: ec.EllipticCurvePrivateKey,
    public_template: dict[Attribute, Any],
    private_template: dict[Attribute, Any],
) -> tuple[Item, Item]:
    """Put a key pair into the device, as if it had been made there."""
    point = secret.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
    )
    head = bytes([4, len(point)]) if len(point) < 128 else bytes([4, 0x81, len(point)])
    shared = {
        Attribute.EC_PARAMS: next(p for p, c in CURVES.items() if c.name == secret.curve.name),
        Attribute.LOCAL: True,
    }
    private = Item(
        device,
        {
            **private_template,
            **shared,
            Attribute.ALWAYS_SENSITIVE: True,
            Attribute.NEVER_EXTRACTABLE: True,
        },
        secret,
    )
    public = Item(device, {**public_template, **shared, Attribute.EC_POINT: head + point}, None)
    device.objects += [private, public]
    return private, public


class Item:
    """One object in the device."""

    def __init__(
        self,
        device: Device,
        attributes: dict[Attribute, Any],
        secret: ec.EllipticCurvePrivateKey | None,
    ) -> None:
        self.device = device
        self.attributes = attributes
        self.secret = secret

    def __getitem__(self, key: Attribute) -> Any:
        self.device.reach("read")
        if key is Attribute.VALUE and self.attributes[Attribute.SENSITIVE]:
            raise pkcs11.AttributeSensitive
        if key not in self.attributes:
            raise pkcs11.AttributeTypeInvalid
        return self.attributes[key]

    def destroy(self) -> None:
        self.device.reach("destroy")
        if self in self.device.objects:
            self.device.objects.remove(self)

    def sign(self, digest: bytes, *, mechanism: Mechanism, pin: Any = None) -> bytes:
        self._usable(Attribute.SIGN, mechanism)
        if self.attributes[Attribute.ALWAYS_AUTHENTICATE]:
            self.device.reaffirm(pin)
        self.device.reach("sign")
        assert self.secret is not None
        algorithm = ec.ECDSA(Prehashed(_HASHES[len(digest)]))
        r, s = decode_dss_signature(self.secret.sign(digest, algorithm))
        size = (self.secret.key_size + 7) // 8
        self.device.reach("sign", "after")
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def derive_key(
        self,
        key_type: object,
        bits: int,
        *,
        mechanism: Mechanism,
        mechanism_param: Any,
        **more: Any,
    ) -> Item:
        self._usable(Attribute.DERIVE, mechanism)
        self.device.reach("derive")
        assert self.secret is not None
        peer = ec.EllipticCurvePublicKey.from_encoded_point(self.secret.curve, mechanism_param[2])
        shared = self.secret.exchange(ec.ECDH(), peer)
        made = Item(self.device, {**more["template"], Attribute.VALUE: shared}, None)
        self.device.objects.append(made)
        self.device.reach("derive", "after")
        return made

    def _usable(self, attribute: Attribute, mechanism: Mechanism) -> None:
        if not self.attributes[attribute]:
            raise pkcs11.FunctionRejected
        if mechanism not in self.attributes[Attribute.ALLOWED_MECHANISMS]:
            raise pkcs11.MechanismInvalid
        if not self.device.logged_in:
            raise pkcs11.UserNotLoggedIn


def session_objects(device: Device) -> list[Item]:
    """List what is left of derived values: nothing, after every operation."""
    return [item for item in device.objects if not item.attributes[Attribute.TOKEN]]


def of_class(device: Device, kind: ObjectClass) -> list[Item]:
    """List the device's objects of one class."""
    return [item for item in device.objects if item.attributes[Attribute.CLASS] is kind]
