"""The sentences that stories are put together from: beats of six plots, each with several wordings."""

KINDS = {"fox": "young fox", "bear": "gentle bear", "rabbit": "small rabbit", "owl": "sleepy owl", "mouse": "brave mouse",
         "cat": "curious cat", "dog": "cheerful dog", "otter": "playful otter", "girl": "clever girl", "boy": "quiet boy",
         "hedgehog": "shy hedgehog", "squirrel": "busy squirrel", "goat": "stubborn goat", "robot": "little robot",
         "dragon": "tiny dragon", "baker": "young baker", "sailor": "old sailor", "gardener": "patient gardener",
         "frog": "green frog", "crow": "clever crow"}
NAMES = {"he": "Tom Max Felix Oscar Rufus Milo Jasper Otto Bruno Hugo Pip Theo Oliver Barnaby Linus Casper".split(),
         "she": "Lily Anna Mia Nora Clara Ruby Hazel Ivy Wren Daisy Luna Poppy Stella Matilda Freya Juniper".split()}
HELPERS = ["wise turtle", "friendly heron", "passing merchant", "kind old woman", "singing blackbird", "lonely shepherd",
           "grey badger", "travelling painter", "tall fisherman", "young beekeeper", "white swan", "retired captain",
           "gruff blacksmith", "talkative parrot", "slow snail", "night watchman"]
PLACES = ["a village by the sea", "a forest full of pines", "a valley with three streams", "a town of red roofs",
          "an island with one lighthouse", "a farm below the hills", "a cottage near the old mill", "a harbour full of boats",
          "a meadow of tall grass", "a house at the edge of the wood", "a street of narrow shops", "a mountain pass"]
OBJECTS = ["silver key", "wooden flute", "red kite", "brass compass", "blue lantern", "glass marble", "woollen scarf",
           "music box", "paper map", "copper bell", "golden thimble", "leather notebook", "painted egg", "pocket watch",
           "straw hat", "stone whistle"]
FOODS = ["plum cake", "pumpkin soup", "honey bread", "apple pie", "cherry jam", "mushroom stew", "nut biscuits", "berry tart"]
WEATHER = ["bright", "windy", "cold", "misty", "warm", "rainy", "quiet", "snowy"]
SEASONS = ["spring", "summer", "autumn", "winter"]
SPOTS = ["under the bridge", "behind the mill", "beside the well", "inside a hollow oak", "near the broken fence",
         "at the top of the tower", "below the waterfall", "among the reeds", "in the attic", "on the far hill"]
FEELINGS = ["happy", "proud", "tired but glad", "calm", "grateful", "light as a feather"]

OPENINGS = [
    "Once upon a time, a {kind} named {n} lived in {place}.",
    "In {place} there lived a {kind} called {n}.",
    "{n} was a {kind} who made {his} home in {place}.",
    "Long ago, {place} was home to a {kind} whose name was {n}.",
    "Everyone in {place} knew {n}, a {kind} with a warm heart.",
    "There was once a {kind} called {n}, and {he} lived in {place}.",
]
DETAILS = [
    "Each morning {he} drank tea and watched the clouds.", "{He} liked to count the stars before bed.",
    "{He} could never pass a puddle without jumping in.", "Most of all, {he} loved the smell of {food}.",
    "{His} neighbours often heard {him} humming old songs.", "{He} kept a small garden and spoke to every bean in it.",
    "{He} was not very big, but {he} asked very big questions.", "On market days {he} carried baskets for anyone who asked.",
    "{He} slept badly when the wind was loud.", "{His} favourite season was {season}, when the air tasted new.",
]
ENDINGS = [
    "From then on, {n} never forgot that {moral}.", "That night {n} fell asleep feeling {feeling}.",
    "And whenever somebody asked about it, {n} only smiled and said that {moral}.",
    "When the moon came up, {he} was {feeling}, for {he} had learned that {moral}.",
    "To this day people there say that {moral}.", "{n} wrote one line in {his} diary: {moral}.",
    "The next day began like any other, yet {n} felt {feeling}.",
]
MORALS = ["a small kindness travels far", "help often comes from someone new", "patience opens more doors than force",
          "a promise is worth keeping", "being brave can be very quiet", "nobody has to do hard things alone",
          "asking is the first step to finding", "good work takes its time", "sharing makes a feast of a crumb",
          "a mistake can be a fine teacher"]

# Each plot is a list of beats; one wording of each is used, in order.
PLOTS = {
    "lost": [
        ["One {weather} morning {his} {obj} was gone.", "On a {weather} day in {season}, {he} noticed that the {obj} was missing.",
         "Then, one {weather} evening, {n} reached for {his} {obj} and found an empty shelf.",
         "But after a {weather} night the {obj} had vanished from its hook."],
        ["{He} looked under the bed, behind the stove and even in the flour jar.", "{n} searched every drawer twice and found only dust.",
         "{He} turned out all the cupboards, but nothing shone back at {him}.", "No corner of the house stayed untouched, and still there was no sign of it."],
        ["Outside, {he} met a {helper} who was resting {spot}.", "Down the road a {helper} waved and asked why {n} looked so worried.",
         "Just then a {helper} came by and stopped to listen.", "A {helper} heard {him} sigh and came closer."],
        ['"Let us follow the footprints," said the {helper}.', '"Think of where you laughed last," the {helper} advised.',
         '"Lost things like quiet places," whispered the {helper}.', '"Two pairs of eyes are better than one," the {helper} told {him}.'],
        ["Together they walked until they came to something glittering {spot2}.", "Side by side they searched all afternoon, and at last something gleamed {spot2}.",
         "They went slowly, step by step, and there, {spot2}, a magpie had built its nest.", "Before sunset the two of them stood {spot2} and held their breath."],
        ["It was the {obj}, a little muddy but not broken.", "There lay the missing treasure, safe and dry.", "{n} laughed aloud, because {his} {obj} had been there the whole time.",
         "Carefully {he} picked it up and wiped it clean."],
        ["To say thank you, {n} invited {his} new friend to share some {food}.", "{He} cooked {food} for both of them that evening.",
         "They celebrated with {food} and told stories until late.", "Of course {he} gave the {helper} the biggest slice of {food}."],
    ],
    "contest": [
        ["Every {season} there was a contest for the best {food}.", "The mayor announced a baking contest, and the prize was a {obj}.",
         "A poster on the wall promised a {obj} to whoever made the finest {food}.", "That {season} the whole town talked about one thing: the great {food} contest."],
        ["{n} wanted to win more than anything.", "{He} had never won a prize before.", "Although {he} had no recipe, {n} signed up at once.", "{n} practised in secret for nine days."],
        ["The first try was burned black.", "Unfortunately, the oven smoked and the dough ran away.", "{His} first attempt tasted of salt and sorrow.", "At the start everything went wrong, and even the spoon broke."],
        ["A {helper} smelled the smoke and knocked at the door.", "Through the window a {helper} offered some advice.", "Luckily, a {helper} was staying next door.", "Then a {helper} passed by with a basket of fresh herbs."],
        ['"Slow down and taste as you go," said the {helper}.', '"The secret is a pinch of patience," the {helper} explained.', '"You have to listen to the dough," was the advice.', '"Begin again, but smile this time," the visitor suggested.'],
        ["So {n} started over, and this time the kitchen filled with a golden smell.", "{He} measured, stirred and waited, and the result was beautiful.", "Hour after hour they worked, and finally it looked just right.",
         "The second one rose like a little sun."],
        ["The judges took one bite and cheered.", "When the winner was called, it was {n} who stepped forward.", "{n} came second, but the crowd clapped loudest for {him}.", "All the plates came back empty, which is the best prize of all."],
    ],
    "storm": [
        ["One {weather} night a storm rolled in from the west.", "In late {season} dark clouds gathered over the roofs.", "Without warning, the wind began to howl.", "The thunder arrived before supper."],
        ["{n} heard a faint cry {spot}.", "Between two claps of thunder {he} noticed a small light {spot}.", "Something was tapping at the shutters, over and over.", "From far away came a voice calling for help."],
        ["{He} took {his} {obj}, put on a coat and went out into the rain.", "Even though {he} was afraid, {n} opened the door.", "With a {obj} in one hand, {he} stepped into the dark.", "{n} counted to three and ran."],
        ["There stood a {helper}, wet to the bone.", "A {helper} was stuck in the mud up to the knees.", "{He} found a {helper} who had lost the way.", "In the ditch sat a {helper}, shivering badly."],
        ['"Hold on to me," {n} shouted.', '"Do not worry, my house is close," said {n}.', '"Take my scarf and follow the fence," {he} called.', '"We will go together," {n} promised.'],
        ["Step by step they fought their way back to the warm kitchen.", "It took them an hour to cross one field.", "The {obj} showed them the path, and soon they saw a lit window.", "They fell twice, laughed once, and reached the door at midnight."],
        ["Over hot {food} the guest told tales of distant lands.", "By the fire they ate {food} and listened to the rain.", "In the morning the sky was clear, and the stranger left a gift on the table.", "After the storm, the two stayed friends for many years."],
    ],
    "secret": [
        ["One {weather} afternoon {n} found a {obj} {spot}.", "While sweeping the floor, {he} discovered a {obj} with strange marks on it.", "A bird dropped a {obj} right in front of {him}.", "Inside a loaf of bread, of all places, {n} found a {obj}."],
        ["There was a note tied to it with blue thread.", "On its side somebody had scratched a tiny arrow.", "It hummed softly whenever {he} turned to the north.", "Four words were written on it: look where water sleeps."],
        ["{n} could not stop thinking about it.", "All day long {he} wondered what it meant.", "{His} curiosity grew like a weed after rain.", "At supper {he} barely touched the {food}."],
        ["{He} asked a {helper}, who knew all the old riddles.", "Only a {helper} had seen such a thing before.", "At the crossroads a {helper} studied it for a long time.", "A {helper} put on thick glasses and nodded."],
        ['"You must go {spot2}," said the {helper}, "and bring a spade."', '"It belongs {spot2}," came the answer.', '"My grandmother hid something {spot2}," the {helper} confessed.', '"Follow it and do not hurry," the {helper} murmured.'],
        ["So off {he} went, and under a flat stone {he} uncovered a tin box.", "After much digging, {n} struck wood.", "{He} searched until {his} arms ached, and then the ground sounded hollow.", "At last a hidden door swung open."],
        ["Inside were letters, all of them full of love.", "It held seeds of flowers that nobody had seen for a hundred years.", "There was no gold, only a drawing of two friends holding hands.", "{He} found a recipe for {food} and a bag of old coins."],
        ["{n} shared the discovery with the whole town.", "By {season} the secret had made everyone smile.", "They hung it in the town hall for all to see.", "Children still ask to hear about that day."],
    ],
    "learn": [
        ["More than anything, {n} wished to play the {obj2}.", "{n} dreamed of learning to swim across the lake.", "For a whole year {he} had wanted to paint the sea.", "{His} greatest wish was to dance at the {season} fair."],
        ["The others laughed, for {he} had never practised.", "But {he} was clumsy, and {his} first lesson ended in tears.", "People shook their heads and said it was too late to begin.", "Every time {he} tried, something went crash."],
        ["One {weather} day {he} met a {helper} {spot}.", "It was a {helper} who changed everything.", "Then a {helper} moved in across the lane.", "By chance a {helper} saw {him} crying {spot}."],
        ['"Nobody is born knowing," said the {helper}.', '"Give me ten minutes every day," the {helper} offered.', '"First learn to fall, then learn to stand," was the first lesson.', '"I was worse than you," the {helper} admitted with a grin.'],
        ["So they practised at dawn, when only the sparrows were watching.", "Week after week {n} came back, rain or shine.", "{He} made a thousand mistakes and remembered each of them.", "Little by little {his} hands grew sure."],
        ["When {season} came, {he} stood before the crowd with trembling knees.", "At the fair {n} took a deep breath and began.", "The big evening arrived sooner than {he} expected.", "Finally {he} was ready to show them all."],
        ["For a moment there was silence, and then came a roar of applause.", "It was not perfect, but it was beautiful.", "Nobody laughed now.", "Even the mayor wiped away a tear."],
        ["Afterwards everyone shared {food} in the square.", "{His} teacher gave {him} a {obj} as a keepsake.", "The next {season} {n} began to teach the little ones.", "Now {he} practises every morning just for the joy of it."],
    ],
    "journey": [
        ["One day a letter arrived: {his} cousin needed a {obj} before the end of {season}.", "{n} had to carry a {obj} to the other side of the mountains.",
         "A {helper} was too ill to travel, so {n} agreed to deliver a {obj}.", "In {season} {he} set out with a {obj} wrapped in cloth."],
        ["{He} packed {food}, a blanket and one spare sock.", "With a full bag and an empty stomach, {he} left at first light.", "{His} friends waved from the gate until {he} was out of sight.", "The road was long, but the sky was {weather}."],
        ["On the second day the bridge was broken.", "Halfway there, a river blocked the way.", "Soon {he} lost the path in thick fog.", "Near the border a gate stood locked and nobody had the key."],
        ["{n} sat down and thought.", "Turning back was easy, but {he} did not turn back.", "For a while {he} could only stare.", "Then {he} had an idea."],
        ["{He} tied fallen branches together and built a raft.", "Whistling loudly, {he} followed the echo along the rocks.", "{He} traded half of the {food} for a ride on a hay cart.", "A family of beavers helped {him} in return for a song."],
        ["Three days later {he} knocked at the right door.", "By evening the lights of the next town appeared.", "Dusty and hungry, {n} arrived just in time.", "When the bell struck noon, the journey was over."],
        ["The {obj} was safe, and everyone embraced {him}.", "There was music, and a bed with clean sheets.", "{His} cousin cried with joy and called {him} a hero.", "Nobody could believe how far {he} had come."],
    ],
}
