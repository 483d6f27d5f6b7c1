import { useRef } from "preact/hooks";
import { EXAMPLES_MAX, LIKE, UNLIKE } from "../../address/link";
import { expectPicture } from "../../device/switch";
import { addPicture } from "../../search/examples";
import { options } from "../../state";
import { t } from "../../words/messages";
import { ACCEPT } from "../ask/Ask";
import { Menu, MenuButton } from "../elements/Menu";

/** Adds a picture that matches should be like, or not like: above the results, or on a phone among the filters. */
export function AddPicture() {
  const input = useRef<HTMLInputElement>(null);
  const weight = useRef(LIKE);
  const pick = (wanted: number) => {
    weight.current = wanted;
    expectPicture();
    input.current?.click();
  };
  const take = ({ currentTarget }: { currentTarget: HTMLInputElement }) => {
    const [picked] = currentTarget.files ?? [];
    if (picked) void addPicture(picked, weight.current);
    // So that picking the same file again counts as a change.
    currentTarget.value = "";
  };
  if (options.value.examples.length >= EXAMPLES_MAX) return null;
  return (
    <span class="add-picture">
      <input ref={input} type="file" accept={ACCEPT} hidden data-testid="added" onChange={take} />
      <Menu label={t("ask.add")} title={t("ask.add")} icon="picture" isNamed>
        <MenuButton icon="plus" text={t("card.like")} onClick={() => pick(LIKE)} />
        <MenuButton icon="minus" text={t("card.unlike")} onClick={() => pick(UNLIKE)} />
      </Menu>
    </span>
  );
}
