import { connect, EXAMPLES, searchItem } from "../../search";
import { config, examples, offline, stats } from "../../state";
import { formatCount } from "../../words/format";
import { Icon } from "../elements/icons";
import { ProblemCard } from "../elements/Notice";
import { Thumb } from "../elements/Thumb";
import { Intake } from "./Intake";

/** The page before anything is searched for. */
export function Start() {
  const count = stats.value?.images;
  const paste = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘ V" : "Ctrl V";
  return (
    <div class="start">
      <h1>Search by picture</h1>
      <p class="lead">
        {config.value.tagline ??
          `Show a photo and see what is most like it${count ? ` among ${formatCount(count)} pictures` : ""}, how sure that is, and where to find it.`}
      </p>
      {offline.value ? (
        <ProblemCard problem={offline.value} onRetry={connect} />
      ) : (
        <>
          <div class="drop-card">
            <span class="drop-sign">
              <Icon name="picture" size={34} />
            </span>
            <p class="drop-title">
              <span class="with-mouse">Drop a picture anywhere</span>
              <span class="with-finger">Show a picture</span>
            </p>
            <p class="drop-sub with-mouse">
              or paste one with <kbd>{paste}</kbd>
            </p>
            <Intake />
            <p class="drop-note">
              <Icon name="shield" size={16} />
              <span>Scaled down in your browser, and forgotten after the answer.</span>
            </p>
          </div>
          <Examples />
          {stats.value?.images === 0 && (
            <p class="lead">The catalogue is empty so far. Once something is indexed, it can be found here.</p>
          )}
        </>
      )}
    </div>
  );
}

function Examples() {
  const items = examples.value ?? Array.from({ length: EXAMPLES }, () => null);
  if (items.length === 0) return null;
  return (
    <section class="examples" aria-labelledby="examples-title">
      <h2 id="examples-title">Or start from one of these</h2>
      <ul>
        {items.map((item, index) => (
          <li key={item?.id ?? index}>
            {item ? (
              <button type="button" class="example" onClick={() => void searchItem(item)}>
                <Thumb src={item.image_url} alt={item.title || "Untitled item"} eager />
              </button>
            ) : (
              <span class="example-expected" />
            )}
          </li>
        ))}
      </ul>
    </section>
  );
}
