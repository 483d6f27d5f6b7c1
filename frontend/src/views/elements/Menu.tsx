import type { ComponentChildren } from "preact";
import { useId, useRef } from "preact/hooks";
import { Icon, type IconName } from "./icons";

/** A button that opens a few more; the browser closes them on Escape and on a click elsewhere, and gives the focus back. */
export function Menu(props: {
  label: string;
  title: string;
  icon?: IconName;
  /** The title is next to the icon. */
  isNamed?: boolean;
  children: ComponentChildren;
}) {
  const id = useId();
  const panel = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  /** Below the button if there is room, at its inner edge; in the page's coordinates, so that it scrolls with the page. */
  const place = () => {
    const [shown, from] = [panel.current, button.current?.getBoundingClientRect()];
    if (!shown?.matches(":popover-open") || !from) return;
    const { width, height } = shown.getBoundingClientRect();
    const end = document.documentElement.clientWidth - width - 8;
    const below = from.bottom + height + 8 <= innerHeight || from.top < height;
    shown.style.left = `${Math.max(8, Math.min(from.right - width, end)) + scrollX}px`;
    shown.style.top = `${(below ? from.bottom + 4 : from.top - height - 4) + scrollY}px`;
    // It opens a moment after the key: whoever is already further down stays there.
    if (!shown.contains(document.activeElement)) shown.querySelector("button")?.focus({ preventScroll: true });
  };
  // Before its button does anything: what the button opens gives the focus back to where it is now.
  const close = (event: Event) => {
    if (event.target !== panel.current) panel.current?.hidePopover();
  };
  return (
    <>
      <button
        ref={button}
        type="button"
        class={props.isNamed ? "text-button" : "icon-button"}
        aria-label={props.label}
        title={props.title}
        popovertarget={id}
      >
        <Icon name={props.icon ?? "more"} size={18} />
        {props.isNamed && <span>{props.title}</span>}
      </button>
      <div id={id} ref={panel} popover="auto" class="menu" onToggle={place} onClickCapture={close}>
        {props.children}
      </div>
    </>
  );
}

export function MenuButton(props: {
  icon: IconName;
  text: string;
  label?: string;
  pressed?: boolean;
  onClick: () => void;
}) {
  return (
    <button
      type="button"
      class="menu-button"
      aria-label={props.label}
      aria-pressed={props.pressed}
      onClick={props.onClick}
    >
      <Icon name={props.icon} size={18} />
      <span>{props.text}</span>
    </button>
  );
}
