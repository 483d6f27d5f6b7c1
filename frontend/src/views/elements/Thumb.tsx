import { useState } from "preact/hooks";
import { pictureAddress } from "../../state";
import { t } from "../../words/messages";
import { Icon } from "./icons";

/** A catalogue's picture. Its host is not ours: if it does not load, an icon shows that. */
export function Thumb({ src, alt, eager = false }: { src: string; alt: string; eager?: boolean }) {
  const [broken, setBroken] = useState("");
  if (broken === src || !src) {
    return (
      <span
        class="thumb thumb-broken"
        role="img"
        aria-label={alt ? t("picture.missing.name", { name: alt }) : t("picture.missing")}
      >
        <Icon name="picture" size={28} />
        <span aria-hidden="true">{t("picture.missing")}</span>
      </span>
    );
  }
  return (
    <img
      class="thumb"
      src={pictureAddress(src)}
      alt={alt}
      loading={eager ? "eager" : "lazy"}
      decoding="async"
      referrerpolicy="no-referrer"
      draggable={false}
      onError={() => setBroken(src)}
    />
  );
}
